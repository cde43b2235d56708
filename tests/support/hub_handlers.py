"""How a hub on loopback and its CDN answer each request."""

from __future__ import annotations

import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from support.hub_contents import Commit, Fault, File, Request

if TYPE_CHECKING:
    from support.hub_server import HubServer

SIGNATURE = "X-Amz-Signature=5f2a"
_BLOCK = 64 << 10


class Handler(BaseHTTPRequestHandler, ABC):
    """What both servers share: recording, faults, and sending bytes with ranges."""

    hub: HubServer
    role: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    @abstractmethod
    def do_GET(self) -> None:
        """Answer a request; one for the head alone gets the same, less the body."""

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

    def send_file(self, path: str, file: File, headers: Mapping[str, str]) -> None:
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


class Hub(Handler):
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
        fault = self.hub.take_fault(self.hub.API)
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


class Cdn(Handler):
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
