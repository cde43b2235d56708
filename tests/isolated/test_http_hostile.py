"""A server that breaks HTTP on purpose gets neither memory, nor another host, nor a traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from packager.errors import HostError, UsageError
from packager.isolated import http_source
from packager.isolated.http_client import check_address
from packager.isolated.http_source import HttpSource
from packager.progress import Silent

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS_SIZE = 64 << 20


@dataclass
class RawServer:
    """Says ``answer`` to whoever asks, then ``endless`` zeros if it should."""

    answer: bytes
    endless: bool = False
    port: int = 0
    sent: int = 0
    asked: list[bytes] = field(default_factory=list)

    def speak(self, caller: socket.socket) -> None:
        with caller, suppress(OSError):
            self.asked.append(caller.recv(1 << 16).partition(b"\r\n")[0])
            caller.sendall(self.answer)
            while self.endless and self.sent < ENDLESS_SIZE:
                caller.sendall(bytes(1 << 20))
                self.sent += 1 << 20


@contextmanager
def speaking(server: RawServer) -> Iterator[HttpSource]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.port = listening.getsockname()[1]

        def serve() -> None:
            with suppress(OSError):
                while True:
                    server.speak(listening.accept()[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield HttpSource(f"http://127.0.0.1:{server.port}/b/", Silent(), sleep=lambda _: None)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def test_a_chunk_of_a_size_below_zero_is_not_read_to_its_end() -> None:
    server = RawServer(CHUNKED + b"-1\r\n", endless=True)
    with speaking(server) as source, pytest.raises(HostError):
        source.read_small("SHA256SUMS", 1 << 20)
    assert server.sent < ENDLESS_SIZE // 2


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"-5\r\nabc",
        CHUNKED + b"many\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"\x00\xff\r\n\r\n",
    ],
    ids=["negative", "no number", "cut", "no address", "a file", "headers", "no HTTP"],
)
def test_95_what_is_no_answer_is_one_error(answer: bytes) -> None:
    server = RawServer(answer)
    with speaking(server) as source, pytest.raises(HostError):
        source.read_small("SHA256SUMS", 1 << 20)
    assert len(server.asked) <= http_source.TRIES


@pytest.mark.parametrize("place", ["http://localhost:{}/b/x", "ftp://127.0.0.1:{}/x"])
def test_98_a_redirect_to_another_host_is_named_and_not_followed(place: str) -> None:
    with speaking(RawServer(b"")) as elsewhere:
        port = elsewhere.url.rpartition(":")[2].partition("/")[0]
        there = place.format(port)
        answer = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
        server = RawServer(answer.encode())
        with speaking(server) as source, pytest.raises(HostError) as refused:
            source.read_small("SHA256SUMS", 1 << 20)
    assert there in refused.value.message
    assert server.asked == [b"GET /b/SHA256SUMS HTTP/1.1"]


def test_a_redirect_on_the_same_host_is_followed() -> None:
    with speaking(RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")) as second:
        answer = f"HTTP/1.1 302 Found\r\nLocation: {second.url}x\r\nContent-Length: 0\r\n\r\n"
        with speaking(RawServer(answer.encode())) as source:
            assert source.read_small("SHA256SUMS", 1 << 20) == b"here"


@pytest.mark.parametrize(
    "url", ["http://me:secret@host/b/", "http://secret@host/", "http://host/b?key=secret",
            "http://host/b#secret"],
)  # fmt: skip
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_address(url)
    assert "secret" not in f"{refused.value.message}{refused.value.hint}"


@pytest.mark.parametrize(
    "url", ["http://[::1/b", "http:///b", f"http://{'a' * 70}.x/", "http://host:99999/",
            "http://host/a b/", "http://host/\x1b[31m"],
)  # fmt: skip
def test_what_is_no_address_is_one_error(url: str) -> None:
    with pytest.raises(UsageError, match="no address") as refused:
        check_address(url)
    assert refused.value.message.isprintable()
