"""A hub on loopback: the part of its HTTP interface that huggingface_hub 2.4 uses to download.

Two servers on two ports, as in the world: the hub itself, and a CDN to which it redirects for
files kept in LFS, at addresses signed beforehand. Like S3, the CDN refuses a request that
brings an ``Authorization`` of its own. What each answers is in ``hub_handlers``.

    with HubServer({"org/model": {"config.json": b"{}", "model.safetensors": b"..."}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)

A repository may be a folder, too. Faults are ordered beforehand, by the file's path or, for
the metadata call, by ``HubServer.API``; every request is kept in ``hub.requests``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from support.hub_contents import Commit, Fault, File, Request, commit_of
from support.hub_handlers import Cdn, Handler, Hub


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
        entries = commit_of(files)
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

    def content(self, path: str, file: File) -> tuple[bytes, str]:
        """What is sent for ``path``, and its entity tag."""
        return self._served.get(path, file.data), self._etags.get(path, file.etag)

    def find_by_digest(self, digest: str) -> tuple[str, File] | None:
        for commits in self._commits.values():
            for files in commits.values():
                for path, file in files.items():
                    if file.sha256 == digest:
                        return path, file
        return None

    def wait(self) -> None:
        self._released.wait(60)


def _listen(hub: HubServer, role: str) -> ThreadingHTTPServer:
    kind: type[Handler] = Hub if role == "hub" else Cdn
    handler = type(f"{role.title()}Handler", (kind,), {"hub": hub, "role": role})
    # All of 127/8 is this host (RFC 1122 s.3.2.1.3): two hosts as well as two ports.
    address = "127.0.0.1" if role == "hub" else "127.0.0.2"
    return _Server((address, 0), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed, or hang up, are what this server is for."""
