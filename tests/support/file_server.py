"""A directory behind a real HTTP server: with ranges or without, and with faults on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-\Z")


@dataclass
class FileServer:
    """What it serves, and how badly.

    ``cut_after``: of each answer about a volume, so many bytes come. ``spoil`` may change what
    an answer for a name, from an offset, says. ``asked`` are the names and offsets asked for.
    """

    directory: Path
    ranges: bool = True
    cut_after: int | None = None
    failures: int = 0
    spoil: Callable[[str, int, bytes], bytes] = lambda _name, _offset, data: data
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.removeprefix("/bundle/")
            asked = _RANGE.match(self.headers.get("Range", ""))
            offset = int(asked[1]) if asked and server.ranges else 0
            server.asked.append((name, int(asked[1]) if asked else 0))
            path = server.directory / name
            if server.failures > 0:
                server.failures -= 1
                self.send_error(503)
            elif not path.is_file():
                self.send_error(404)
            else:
                self._send(name, offset, path.read_bytes()[offset:])

        def _send(self, name: str, offset: int, data: bytes) -> None:
            self.send_response(206 if offset else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            data = server.spoil(name, offset, data)
            if server.cut_after is not None and name.startswith("payload."):
                data = data[: server.cut_after]
                self.close_connection = True
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_address[1]}/bundle/"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
