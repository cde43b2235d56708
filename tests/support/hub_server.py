"""A hub on loopback: the part of its HTTP interface that huggingface_hub 2.4 uses to download.

Two servers on two ports, as in the world: the hub itself, and a CDN to which it redirects for
files kept in LFS, at addresses signed beforehand. Like S3, the CDN refuses a request that
brings an ``Authorization`` of its own.

    with HubServer({"org/model": {"config.json": b"{}", "model.safetensors": b"..."}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)

A repository may be a folder, too. Faults are ordered beforehand, by the file's path or, for
the metadata call, by ``HubServer.API``; every request is kept in ``hub.requests``.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit

SIGNATURE = "X-Amz-Signature=5f2a"
_LFS_NAMES = (".safetensors", ".bin", ".model", ".gguf")
_LFS_SIZE = 10 << 20
_BLOCK = 64 << 10


@dataclass(frozen=True)
class Request:
    """One request as it came in; ``server`` is ``hub`` or ``cdn``, header names lower case.

    ``file`` is the path in the repository, where the request is for the bytes of one.
    """

    server: str
    method: str
    path: str
    headers: Mapping[str, str]
    file: str | None


@dataclass
class Fault:
    """What goes wrong with one file, the next ``times`` times."""

    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None


@dataclass(frozen=True)
class _File:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        """The git object: of the LFS pointer, for a file kept in LFS."""
        data = self.data
        if self.lfs:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                self.sha256.encode(),
                len(self.data),
            )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


Commit = dict[str, _File]


class HubServer:
    """A hub that serves ``repositories``, each one commit, under ``main`` and its own id."""

    API = "<metadata>"

    def __init__(
        self,
        repositories: Mapping[str, Mapping[str, bytes] | Path],
        *,
        token: str | None = None,
    ) -> None:
        self.token = token
        self.requests: list[Request] = []
        self.gated: set[str] = set()
        self.granted: set[str] = set()
        self.ignore_range = False
        self.ignore_if_range = False
        self.api_redirect: str | None = None
        self.bytes_sent = 0
        self._faults: dict[str, list[Fault]] = {}
        self._served: dict[str, bytes] = {}
        self._etags: dict[str, str] = {}
        self._commits: dict[str, dict[str, Commit]] = {}
        self._heads: dict[str, str] = {}
        self._released = threading.Event()
        self._mutex = threading.Lock()
        for name, files in repositories.items():
            self.commit(name, files)
        self._servers = {role: _listen(self, role) for role in ("hub", "cdn")}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> HubServer:  # noqa: PYI034
        for server in self._servers.values():
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    # What there is

    @property
    def endpoint(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return self._address("hub")

    @property
    def cdn(self) -> str:
        """The other origin."""
        return self._address("cdn")

    def _address(self, role: str) -> str:
        host, port = self._servers[role].server_address[:2]
        return f"http://{host!s}:{port}"

    def commit(self, repository: str, files: Mapping[str, bytes] | Path) -> str:
        """Make a further commit the head of ``repository``; its id."""
        data = _read_folder(files) if isinstance(files, Path) else dict(files)
        entries = {
            path: _File(content, path.endswith(_LFS_NAMES) or len(content) > _LFS_SIZE)
            for path, content in sorted(data.items())
        }
        listing = "".join(f"{path} {file.etag}\n" for path, file in entries.items())
        revision = hashlib.sha1(f"{repository}\n{listing}".encode()).hexdigest()
        self._commits.setdefault(repository, {})[revision] = entries
        self._heads[repository] = revision
        return revision

    def forget(self, repository: str, revision: str) -> None:
        """Lose a commit, as a force-push does."""
        del self._commits[repository][revision]

    def revision(self, repository: str) -> str:
        """The commit that ``main`` names."""
        return self._heads[repository]

    # What goes wrong

    def answer(
        self, path: str, status: int, *, times: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next requests for ``path`` with ``status``."""
        self._faults.setdefault(path, []).append(Fault(times, status, headers or {}))

    def cut(self, path: str, *, after: int, times: int = 1) -> None:
        """Hang up after ``after`` bytes of the answer's body."""
        self._faults.setdefault(path, []).append(Fault(times, cut_after=after))

    def stall(self, path: str, *, after: int, times: int = 1) -> None:
        """Send ``after`` bytes of the body and no more until :meth:`release`."""
        self._faults.setdefault(path, []).append(Fault(times, stall_after=after))

    def release(self) -> None:
        """Let what stalls go on."""
        self._released.set()

    def serve_instead(self, path: str, data: bytes) -> None:
        """Send ``data`` for ``path``, whatever the metadata say."""
        self._served[path] = data

    def change_etag(self, path: str, etag: str) -> None:
        """Call the content of ``path`` something else from now on."""
        self._etags[path] = etag

    # What was asked

    def requests_for(self, path: str) -> list[Request]:
        """The requests for the bytes of the file ``path``, those that were redirected left out."""
        return [r for r in self.requests if r.file == path]

    @property
    def files_fetched(self) -> set[str]:
        """The paths of the files whose bytes were asked for."""
        return {r.file for r in self.requests if r.file is not None}

    # For the handlers

    def record(self, request: Request) -> None:
        with self._mutex:
            self.requests.append(request)

    def take_fault(self, path: str) -> Fault | None:
        with self._mutex:
            faults = self._faults.get(path, [])
            while faults and faults[0].times == 0:
                faults.pop(0)
            if not faults:
                return None
            faults[0].times -= 1
            return faults[0]

    def find(self, repository: str, revision: str) -> tuple[str, Commit] | None:
        """The commit that ``revision`` names in ``repository``, and what it holds."""
        commit = self._heads.get(repository, "") if revision == "main" else revision
        files = self._commits.get(repository, {}).get(commit)
        return None if files is None else (commit, files)

    def has(self, repository: str) -> bool:
        return repository in self._commits

    def content(self, path: str, file: _File) -> tuple[bytes, str]:
        """What is sent for ``path``, and its entity tag."""
        return self._served.get(path, file.data), self._etags.get(path, file.etag)

    def find_by_digest(self, digest: str) -> tuple[str, _File] | None:
        for commits in self._commits.values():
            for files in commits.values():
                for path, file in files.items():
                    if file.sha256 == digest:
                        return path, file
        return None

    def wait(self) -> None:
        self._released.wait(60)


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _listen(hub: HubServer, role: str) -> ThreadingHTTPServer:
    handler = type(f"{role.title()}Handler", (_HANDLERS[role],), {"hub": hub, "role": role})
    # All of 127/8 is this host (RFC 1122 s.3.2.1.3): two hosts as well as two ports.
    address = "127.0.0.1" if role == "hub" else "127.0.0.2"
    return _Server((address, 0), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed, or hang up, are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: recording, faults, and sending bytes with ranges."""

    hub: HubServer
    role: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def record(self, file: str | None = None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.record(Request(self.role, self.command, self.path, headers, file))

    def reply(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.reply(
            status,
            json.dumps({"error": code}).encode(),
            {"X-Error-Code": code, "X-Error-Message": code},
        )

    def send_file(self, path: str, file: _File, headers: Mapping[str, str]) -> None:
        fault = self.hub.take_fault(path)
        if fault is not None and fault.status is not None:
            self.reply(fault.status, b"no", fault.headers)
            return
        data, etag = self.hub.content(path, file)
        begin = self._range_begin(etag, len(data))
        if begin > len(data):
            self.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        for name, value in {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(data[begin:], fault)

    def _range_begin(self, etag: str, size: int) -> int:
        """The first byte asked for; 0 for all of it. RFC 9110 s.13.1.5, s.14.2."""
        wanted = self.headers.get("Range", "")
        if self.hub.ignore_range or not wanted.startswith("bytes="):
            return 0
        if_range = self.headers.get("If-Range")
        if if_range not in (None, f'"{etag}"') and not self.hub.ignore_if_range:
            return 0
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        return begin if begin < size else size + 1

    def _send_body(self, body: bytes, fault: Fault | None) -> None:
        cut = fault.cut_after if fault else None
        stall = fault.stall_after if fault else None
        end = min(limit for limit in (cut, stall, len(body)) if limit is not None)
        self._write(body[:end])
        if stall is not None:
            self.hub.wait()
            self._write(body[end:])
        elif cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _write(self, data: bytes) -> None:
        try:
            for begin in range(0, len(data), _BLOCK):
                self.wfile.write(data[begin : begin + _BLOCK])
                self.hub.bytes_sent += len(data[begin : begin + _BLOCK])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class _Hub(_Handler):
    """Metadata, and the addresses of files."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            self._metadata(path.removeprefix("/api/models/"))
        elif path.startswith("/api/resolve-cache/models/"):
            self._cached(path.removeprefix("/api/resolve-cache/models/"))
        elif "/resolve/" in path:
            self._resolve(path.removeprefix("/"))
        else:
            self.record()
            self.refuse(404, "RepoNotFound")

    def _metadata(self, rest: str) -> None:
        self.record()
        if self.hub.api_redirect is not None:
            self.reply(307, headers={"Location": self.hub.api_redirect + self.path})
            return
        fault = self.hub.take_fault(HubServer.API)
        if fault is not None and fault.status is not None:
            self.reply(fault.status, b"no", fault.headers)
            return
        repository, _, revision = rest.partition("/revision/")
        found = self._found(repository, revision or "main", metadata=True)
        if found is None:
            return
        commit, files = found
        siblings = []
        for path, file in files.items():
            sibling: dict[str, object] = {"rfilename": path}
            if parse_qs(urlsplit(self.path).query).get("blobs"):
                sibling |= {"size": len(file.data), "blobId": file.blob_id}
                if file.lfs:
                    lfs = {"sha256": file.sha256, "size": len(file.data), "pointerSize": 134}
                    sibling["lfs"] = lfs
            siblings.append(sibling)
        document = {
            "_id": "0", "id": repository, "modelId": repository, "sha": commit, "private": False,
            "gated": "manual" if repository in self.hub.gated else False, "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings,
        }  # fmt: skip
        self.reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _found(
        self, repository: str, revision: str, *, metadata: bool
    ) -> tuple[str, Commit] | None:
        """The commit asked for, or ``None`` after a refusal as the hub words it."""
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.hub.token}":
            self.reply(
                401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
            return None
        if not self.hub.has(repository):
            # The hub does not tell strangers which names are taken.
            self.refuse(404 if given else 401, "RepoNotFound")
            return None
        # Metadata of a gated repository are public; its files are not.
        granted = given is not None and repository in self.hub.granted
        if repository in self.hub.gated and not granted and not metadata:
            self.refuse(403 if given else 401, "GatedRepo")
            return None
        found = self.hub.find(repository, revision)
        if found is None:
            self.refuse(404, "RevisionNotFound")
        return found

    def _resolve(self, rest: str) -> None:
        repository, _, place = rest.partition("/resolve/")
        revision, _, path = place.partition("/")
        self.record()
        found = self._found(repository, revision, metadata=False)
        if found is None:
            return
        commit, files = found
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        file = files[path]
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(file.data)),
            "X-Linked-Etag": f'"{file.etag}"',
            "ETag": f'"{file.etag}"',
            "Date": formatdate(time.time(), usegmt=True),
        }
        if file.lfs:
            location = f"{self.hub.cdn}/lfs/{file.sha256}?{SIGNATURE}"
            self.reply(302, b"Found.", {**headers, "Location": location})
        else:
            location = f"/api/resolve-cache/models/{repository}/{commit}/{quote(path)}"
            self.reply(307, b"Moved.", {**headers, "Location": location})

    def _cached(self, rest: str) -> None:
        owner, name, revision, path = rest.split("/", 3)
        self.record(path)
        found = self._found(f"{owner}/{name}", revision, metadata=False)
        if found is not None:
            self.send_file(path, found[1][path], {"X-Repo-Commit": found[0]})


class _Cdn(_Handler):
    """Bytes by digest, for whoever has a signed address and nothing else."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = self.hub.find_by_digest(parts.path.removeprefix("/lfs/"))
        self.record(found[0] if found else None)
        if "Authorization" in self.headers:
            self.reply(400, b"<Error>Only one auth mechanism allowed</Error>")
        elif parts.query != SIGNATURE or found is None:
            self.reply(403, b"<Error>AccessDenied</Error>")
        else:
            self.send_file(*found, {})


_HANDLERS: Mapping[str, type[_Handler]] = {"hub": _Hub, "cdn": _Cdn}
