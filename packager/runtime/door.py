"""The door to a served model: the TCP port that clients see, in front of an engine without one.

The engine answers on a Unix socket, so that it needs no network and may be cut off from all. Each
connection brings one request: its head (RFC 9112 s.2.1) is judged here, by method and path, and
the rest is passed on as it comes, both ways. Only what clients of OpenAI's API ask for is let in;
what else llama-server has, as changing the scale of an adapter for everybody, is not there.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Semaphore, Thread

from packager.errors import HostError
from packager.runtime.engine import LOOPBACK_DOWN

ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
    }
)
_BACKLOG = 128
_MAX_HEAD_SIZE = 1 << 16
_HEAD_SECONDS = 30.0
_BREATH_SECONDS = 0.2
_MAX_CLIENTS = 200  # at once; each takes two of the 1024 files that a process may have open
_BLOCK_SIZE = 1 << 16
# Who is gone without a word, as by a cable that was pulled, is let go after two minutes: tcp(7).
_NOTICE_THE_GONE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 15,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 4,
}
_END_OF_HEAD = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
# As all servers read a line: what they could read differently is refused.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")


class Door:
    """A listening port. ``url`` is where clients knock."""

    def __init__(self, host: str, port: int, *, hint: str) -> None:
        """Listen on ``host`` and ``port``, 0 for any free one; clients wait until :meth:`open`.

        Raises ``HostError`` with ``hint`` where that address cannot be used.
        """
        try:
            [family, _, _, _, address], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
            with socket.socket(family) as probe:  # where loopback is down, nobody else could
                probe.connect(self._listener.getsockname())
        except OSError as error:
            unknown = isinstance(error, socket.gaierror)
            said = str(error.strerror) if unknown else os.strerror(error.errno or 0)
            raise HostError(
                f"cannot listen on {host} port {port}: {said.lower()}",
                hint=LOOPBACK_DOWN if error.errno == errno.ENETUNREACH else hint,
            ) from error
        self._room = Semaphore(_MAX_CLIENTS)
        number = self._listener.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{number}"

    def open(self, engine: Path) -> None:
        """Let clients in, to the engine that listens on the Unix socket ``engine``."""
        Thread(target=self._receive, args=(engine,), daemon=True).start()

    def close(self) -> None:
        """Listen no more. Who is inside already is let finish, while this process lives."""
        # Closing alone would leave the thread waiting in accept(2), and the port taken.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _receive(self, engine: Path) -> None:
        while True:
            self._room.acquire()
            try:
                client, _ = self._listener.accept()
                Thread(target=self._attend, args=(client, engine), daemon=True).start()
            except (OSError, RuntimeError):  # closed; or a client that has left, no more threads
                self._room.release()
                if self._listener.fileno() < 0:
                    return
                time.sleep(_BREATH_SECONDS)

    def _attend(self, client: socket.socket, engine: Path) -> None:
        try:
            _attend(client, engine)
        finally:
            self._room.release()


def judge_head(head: bytes) -> bytes | tuple[int, str]:
    """The head to pass on, for one request alone; or the status and words that refuse it."""
    request, *fields = head.removesuffix(_END_OF_HEAD).split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(request)
    names = [match[1].lower() if (match := _FIELD.fullmatch(field)) else b"" for field in fields]
    if line is None or b"" in names:
        return 400, "not a request that can be understood"
    method, path = line[1].decode("ascii"), line[2].decode("ascii").partition("?")[0]
    if (method, path) not in ROUTES:
        known = ", ".join(f"{m} {p}" for m, p in sorted(ROUTES))
        return 404, f"{method} {path[:80]} is not served here; what is: {known}"
    kept = [f for f, name in zip(fields, names, strict=True) if name != b"connection"]
    return b"\r\n".join([request, *kept, b"Connection: close"]) + _END_OF_HEAD


def _attend(client: socket.socket, engine: Path) -> None:
    """Bring one request to the engine and its answer back; nothing a client does is an error."""
    with client, suppress(OSError):
        for option, value in _NOTICE_THE_GONE.items():
            client.setsockopt(*option, value)
        head, behind = _read_head(client)
        client.settimeout(None)
        judged = judge_head(head) if head else (400, "a request without an end")
        if isinstance(judged, tuple):
            client.sendall(_refusal(*judged))
            _see_out(client)
            return
        with socket.socket(socket.AF_UNIX) as inside:
            try:
                inside.connect(str(engine))
            except OSError:
                client.sendall(_refusal(503, "the engine is being started again; ask once more"))
                return
            inside.sendall(judged + behind)
            asking = Thread(target=_pass_on, args=(client, inside), daemon=True)
            asking.start()
            _pass_on(inside, client)
            for end in (inside, client):  # wakes the other thread, which still uses both
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            asking.join()


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request and what came with it of its body; no head if it does not end."""
    data = b""
    deadline = time.monotonic() + _HEAD_SECONDS  # of all of it, however it dribbles in
    while _END_OF_HEAD not in data:
        left = deadline - time.monotonic()
        if left <= 0 or len(data) > _MAX_HEAD_SIZE:
            return b"", b""
        client.settimeout(left)
        block = client.recv(_BLOCK_SIZE)
        if not block:
            return b"", b""
        data += block
    head, end, behind = data.partition(_END_OF_HEAD)
    return head + end, behind


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Everything from ``source`` to ``target``, and then its end."""
    with suppress(OSError):
        while block := source.recv(_BLOCK_SIZE):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def _see_out(client: socket.socket) -> None:
    """Read a little of what it still sends: closed upon that, it would never see the answer."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(_BREATH_SECONDS)
    for _ in range(_BLOCK_SIZE // 1024):
        if not client.recv(_BLOCK_SIZE):
            break


def _refusal(status: int, message: str) -> bytes:
    """A whole answer, in the form in which clients of OpenAI's API take errors."""
    kind = {404: "not_found_error", 503: "unavailable_error"}.get(status, "invalid_request_error")
    error = {"message": message, "type": kind, "code": status}
    body = json.dumps({"error": error}).encode("ascii")
    head = (
        f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
