"""What the engine reaches for is seen and named, whether or not it could have got there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.reaching_worker import ADDRESS

from packager.errors import NetworkUseError
from packager.format.golden import Golden
from packager.progress import Silent
from packager.runtime import smoke
from packager.runtime.engine import Engine, EngineOptions
from packager.runtime.smoke import record_golden, smoke_test

SENDING = """
import json, socket, sys, threading
from contextlib import suppress
from packager.runtime.egress import watch_egress
watch = watch_egress()
if watch is None:
    print("null"); raise SystemExit
tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
four, six = socket.AF_INET, socket.AF_INET6
refused = []
def attempt(action):
    try: action()
    except OSError as error: refused.append(error.errno)
attempt(lambda: socket.socket(four, tcp).connect(("192.0.2.1", 443)))
attempt(lambda: socket.socket(six, tcp).connect(("2001:db8::1", 80)))
attempt(lambda: socket.socket(six, tcp).connect(("::ffff:192.0.2.2", 80)))
attempt(lambda: socket.socket(four, udp).sendto(b"x", ("192.0.2.3", 9)))
attempt(lambda: socket.socket(four, udp).sendmsg([b"x"], [], 0, ("192.0.2.4", 9)))
thread = threading.Thread(target=attempt, args=(lambda: socket.socket(four, tcp).connect(
    ("192.0.2.5", 1)),))
thread.start(); thread.join()
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()) as here:
    here.sendall(b"heard")
    heard = server.accept()[0].recv(5).decode()
print(json.dumps({"attempts": watch.attempts(), "heard": heard, "refused": len(refused)}))
"""
ENDLESS = """
import socket
from contextlib import suppress
from packager.runtime.egress import MAX_ATTEMPTS, watch_egress
watch = watch_egress()
for port in range(1, 2000):
    with suppress(OSError), socket.socket() as one:
        one.connect(("192.0.2.1", port))
print(len(watch.attempts()) == MAX_ATTEMPTS if watch else None)
"""

# The ways past a filter that asks for connect(2) and judges addresses of IPv4 and IPv6.
ROUND_ABOUT = """
import ctypes, errno, json, os, socket, struct
from packager.runtime.egress import watch_egress
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc = ctypes.CDLL(None, use_errno=True)
class Piece(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("name_size", ctypes.c_uint),
                ("pieces", ctypes.POINTER(Piece)), ("count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("sent", ctypes.c_long)]
def address(family, host):
    return struct.pack("=H", family) + struct.pack("!H4s8x", 9, socket.inet_aton(host))
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")
def many():
    messages, piece = (Message * 17)(), Piece(b"x", 1)
    for number in range(17):
        host = "192.0.2.2" if number == 16 else "127.0.0.1"
        messages[number].name, messages[number].name_size = address(2, host), 16
        messages[number].pieces, messages[number].count = ctypes.pointer(piece), 1
    checked(libc.sendmmsg(udp.fileno(), messages, 17, 0))
def by_number(*numbers):
    checked(libc.syscall(SOCKET, *map(ctypes.c_long, numbers)))
watch = watch_egress()
if watch is None:
    print("null"); raise SystemExit
SOCKET = 41 if os.uname().machine == "x86_64" else 198
udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
errors = []
for action in (
    lambda: checked(libc.sendto(udp.fileno(), b"x", 1, 0, address(0, "192.0.2.1"), 16)),
    many,
    lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    lambda: socket.socket(type=socket.SOCK_RAW, proto=1),
    lambda: by_number(2, 1, (1 << 32) + 132),
    lambda: libc.prctl(4, 0, 0, 0, 0) or tcp.connect(("192.0.2.3", 443)),
):
    try: action()
    except OSError as error: errors.append(errno.errorcode[error.errno])
print(json.dumps({"attempts": watch.attempts(), "errors": errors}))
"""
BLIND = """
import os, sys, tempfile
from packager.runtime.egress import watch_egress
from packager.runtime.sandbox import enter_namespace
if not enter_namespace():
    print("skip"); raise SystemExit
import socket
os.chroot(tempfile.mkdtemp())
watch = watch_egress()
server = socket.create_server(("127.0.0.1", 0))
socket.socket().connect(server.getsockname())
print(watch)
"""


REACHED = (f"{ADDRESS} port 443",)


class Reaching(Engine):
    worker = "support.reaching_worker"


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_way_out_is_refused_and_named_and_loopback_is_left_alone() -> None:
    seen = json.loads(python(SENDING))
    if seen is None:
        pytest.skip("this kernel lets nobody watch")
    assert seen["attempts"] == [
        "192.0.2.1 port 443", "2001:db8::1 port 80", "192.0.2.2 port 80", "192.0.2.3 port 9",
        "192.0.2.4 port 9", "192.0.2.5 port 1",
    ]  # fmt: skip
    assert seen["refused"] == 6
    assert seen["heard"] == "heard"


def test_no_way_round_the_watcher_is_open_and_each_is_named() -> None:
    seen = json.loads(python(ROUND_ABOUT))
    if seen is None:
        pytest.skip("this kernel lets nobody watch")
    assert seen["errors"] == [*["ENETUNREACH"] * 2, *["EAFNOSUPPORT"] * 4, "EFAULT"]
    assert seen["attempts"] == [
        "192.0.2.1 port 9",
        "192.0.2.2 port 9",
        "a socket of family 40, kind 1, protocol 0",
        "a socket of family 17, kind 3, protocol 0",
        "a socket of family 2, kind 3, protocol 1",
        "a socket of family 2, kind 1, protocol 132",
        "an address that could not be read",
    ]


def test_a_watcher_that_can_read_nothing_says_so_and_is_in_no_way() -> None:
    assert python(BLIND).strip() in ("None", "skip")


def test_attempts_without_end_take_no_memory_without_end() -> None:
    assert python(ENDLESS).strip() in ("True", "None")


def test_what_the_engine_reaches_for_and_looks_up_is_named(random_model: Path) -> None:
    with Reaching(random_model) as engine:
        if not engine.egress.watched:
            pytest.skip("this kernel lets nobody watch")
        assert engine.egress.attempts == REACHED
        engine.tokenize("tokenizer.example")
        named = "look-up of tokenizer.example" in engine.egress.attempts
        assert named == ("nameserver" in Path("/etc/resolv.conf").read_text())


def test_what_the_engine_wants_before_it_refuses_a_model_is_named(random_model: Path) -> None:
    with pytest.raises(NetworkUseError) as refused:
        Reaching(random_model, EngineOptions(name="incomplete"))
    assert refused.value.message.endswith(REACHED[0])
    assert refused.value.exit_code == 16


def test_the_watcher_ends_with_the_engine_however_that_ends(random_model: Path) -> None:
    with Engine(random_model) as engine:
        children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
        assert len(children) == engine.egress.watched
        os.kill(engine.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(is_running(int(child)) for child in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(is_running(int(child)) for child in children)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return re.search(r"^State:\s+[ZX]", status, re.MULTILINE) is None


@pytest.mark.usefixtures("reaching")
def test_a_model_that_wants_something_at_the_build_gets_no_golden(random_model: Path) -> None:
    with pytest.raises(NetworkUseError, match=re.escape(REACHED[0])):
        record_golden(random_model, prompts=("the",), max_tokens=2, progress=Silent())


@pytest.mark.usefixtures("reaching")
def test_a_smoke_test_that_sees_it_fails_though_every_token_is_right(
    demo_model: Path, demo_golden: Golden
) -> None:
    result = smoke_test(demo_model, demo_golden, variant="q4_k_m", progress=Silent())
    assert result.tokens_match
    assert result.egress.attempts == REACHED
    assert not result.ok


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "Engine", Reaching)
