"""See, and refuse, whatever this process sends beyond its own loopback: seccomp(2), prctl(2).

A filter in the kernel stops the process at each call that could reach out, and asks a watcher, a
process of its own, which reads the address from the caller's memory. Loopback goes on; anything
else is written down and fails as it would without a route. A look-up is let talk to a name server
that is not there until it has said the name, so that an attempt can be called by it (where it asks
for both kinds of address at once, as getaddrinfo(3) does; else by the name server).

What the watcher cannot read does not go out. Sockets of a kind whose addresses it would not know
(of a virtual machine's host, of a device, raw ones) are not there.

It is a witness, not the wall: between the look and the call a thread could change the address.
The wall is the network namespace (:mod:`packager.runtime.sandbox`), wherever there is one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import signal
import socket
import struct
from dataclasses import dataclass, field

MAX_ATTEMPTS = 64
_MAX_ADDRESS = 128  # struct sockaddr_storage
_MAX_MESSAGES = 1024  # of one sendmmsg(2): UIO_MAXIOV
_MAX_NAME = 253  # RFC 1035 s.2.3.4, less the lengths at both ends
_DNS_PORT = 53
_DNS_HEADER = 12
# Whose addresses are judged here, or lead nowhere but to this host's own processes and kernel.
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_FAMILIES = (*_INTERNET, socket.AF_UNIX, socket.AF_NETLINK)
_KIND = 0xF  # of a socket, less the flags beside it: SOCK_TYPE_MASK of linux/net.h
_INT = 0xFFFFFFFF
_SCTP = 132  # IANA's number; it connects by setsockopt(2), too

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_SET_PTRACER = 0x59616D61  # Yama: lets the watcher, no ancestor, read this process's memory

# linux/seccomp.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RET_ERRNO, _RET_USER_NOTIF, _RET_ALLOW = 0x00050000, 0x7FC00000, 0x7FFF0000
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; nr, arch, instruction, arguments
_REPLY = struct.Struct("=QqiI")  # id, value, error, flags

# linux/filter.h: what is loaded from struct seccomp_data, compared, jumped to, returned.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NR, _AT_ARCH, _AT_SENDTO_ADDRESS = 0, 4, 16 + 4 * 8
_X32_BIT = 0x40000000

_MSGHDR = struct.Struct("=QI4xQQ")  # name, its size, the vector of pieces, their number
_MMSGHDR_SIZE = 64
_PIECE = struct.Struct("=QQ")
_NO_FAMILY = struct.pack("=H", socket.AF_UNSPEC)
_IPV4, _IPV6 = struct.Struct("!2xH4s"), struct.Struct("!2xH4x16s")  # sockaddr_in, sockaddr_in6


@dataclass(frozen=True)
class _Calls:
    """The numbers of the system calls on one machine, and the kernel's name for that."""

    arch: int
    seccomp: int
    socket: int
    connect: int
    sendto: int
    sendmsg: int
    sendmmsg: int
    io_uring_setup: int = 425


# linux/audit.h; asm/unistd_64.h; asm-generic/unistd.h
_MACHINES = {
    "x86_64": _Calls(0xC000003E, 317, 41, 42, 44, 46, 307),
    "aarch64": _Calls(0xC00000B7, 277, 198, 203, 206, 211, 269),
}


class Watch:
    """What a watched process has reached for so far."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._text = b""

    def attempts(self) -> tuple[str, ...]:
        """Each address and name once, in order; at most ``MAX_ATTEMPTS``."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reports, 1 << 16):
                self._text += data
        return tuple(self._text.decode("utf-8").splitlines())


def watch_egress() -> Watch | None:
    """Watch this process, still of one thread, from now to its end; ``None`` where refused.

    Its children are watched too, and it gains no privileges by what it executes. Refused: by a
    kernel before 5.5, on another machine than x86-64 and 64-bit ARM, where something else
    listens to this process in this way already, and where no process may read another's memory.
    """
    calls = _MACHINES.get(platform.machine())
    if calls is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    # The change of user namespace took away the right of others of this user to read its memory.
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    listener = _listen(libc, calls)
    if listener is None:
        return None
    reports, writing = os.pipe()
    process = os.getpid()
    watcher = os.fork()
    if watcher == 0:
        _run_watcher(libc, calls, listener, writing, process)
    libc.prctl(_PR_SET_PTRACER, watcher, 0, 0, 0)
    os.close(listener)
    os.close(writing)
    os.set_blocking(reports, False)
    return Watch(reports) if _is_seen() else None


def _is_seen() -> bool:
    """Ask the watcher its first question: whether it can read an address in this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect("\0")
        except OSError as error:
            return error.errno != errno.EFAULT
    return True


class _Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _listen(libc: ctypes.CDLL, calls: _Calls) -> int | None:
    code = _filter(calls)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return None
    libc.syscall.restype = ctypes.c_long
    listener: int = libc.syscall(
        calls.seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program)
    )
    return None if listener < 0 else listener


def _filter(calls: _Calls) -> bytes:
    """The program in classic BPF: ask about calls that reach out, let through all others.

    What would get round it is not there: the calls of another machine, and io_uring, whose
    requests pass no filter.
    """
    allow, ask, absent = 13, 14, 15
    lines = (
        (_LOAD, 0, 0, _AT_ARCH),
        (_EQUAL, 2, absent, calls.arch),
        (_LOAD, 0, 0, _AT_NR),
        (_AT_LEAST, absent, 4, _X32_BIT),
        (_EQUAL, ask, 5, calls.connect),
        (_EQUAL, ask, 6, calls.sendmsg),
        (_EQUAL, ask, 7, calls.sendmmsg),
        (_EQUAL, ask, 8, calls.socket),
        (_EQUAL, absent, 9, calls.io_uring_setup),
        (_EQUAL, 10, allow, calls.sendto),
        (_LOAD, 0, 0, _AT_SENDTO_ADDRESS),  # both halves: without one it goes to whom was asked
        (_EQUAL, 12, ask, 0),
        (_LOAD, 0, 0, _AT_SENDTO_ADDRESS + 4),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_RETURN, 0, 0, _RET_USER_NOTIF),
        (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS),
    )
    return b"".join(map(_instruction, range(len(lines)), lines))


def _instruction(place: int, line: tuple[int, int, int, int]) -> bytes:
    """One ``struct sock_filter``: ``line`` has the places to go on at, the kernel wants steps."""
    code, then, otherwise, value = line
    jumps = code in (_EQUAL, _AT_LEAST)
    steps = (then - place - 1, otherwise - place - 1) if jumps else (0, 0)
    return struct.pack("=HBBI", code, *steps, value)


def _run_watcher(
    libc: ctypes.CDLL, calls: _Calls, listener: int, reports: int, process: int
) -> None:
    """Be the watcher of ``process`` to its end; never returns.

    It keeps no other file open: whoever waits for the end of the process waits for its pipes.
    """
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        kept = sorted((listener, reports))
        for first, last in ((0, kept[0]), (kept[0] + 1, kept[1]), (kept[1] + 1, 1 << 16)):
            os.closerange(first, last)
        if os.getppid() == process:
            _Watcher(calls, listener, reports).run()
    finally:
        os._exit(0)


@dataclass
class _Watcher:
    """Answers the kernel's questions, one by one. ``asking``: sockets meant for a name server.

    ``blind``: the first of them could not be judged, so that none of the others is.
    """

    calls: _Calls
    listener: int
    reports: int
    seen: set[str] = field(default_factory=set)
    asking: set[int] = field(default_factory=set)
    blind: bool | None = None

    def run(self) -> None:
        question = bytearray(_NOTIFICATION.size)
        while True:
            question[:] = bytes(_NOTIFICATION.size)  # the kernel refuses one that is not zero
            try:
                fcntl.ioctl(self.listener, _NOTIF_RECV, question, True)
            except InterruptedError:
                continue
            except FileNotFoundError:  # the caller is gone
                continue
            number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(question)
            error = self._answer(pid, call, arguments)
            value = -(error or 0)
            flags = _CONTINUE if error is None else 0
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.listener, _NOTIF_SEND, _REPLY.pack(number, 0, value, flags))

    def _answer(self, pid: int, call: int, arguments: list[int]) -> int | None:
        """The error that the call gets; 0 lets it seem done, ``None`` lets it go on."""
        if call == self.calls.socket:
            # The kernel takes an int of each register.
            return self._open(*(argument & _INT for argument in arguments[:3]))
        if self.blind:
            return None
        try:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                error = self._judge(call, arguments, memory.fileno())
        except (OSError, OverflowError, struct.error):
            self.blind = self.blind is None
            if not self.blind:
                self._report("an address that could not be read")
            return errno.EFAULT
        self.blind = False
        return error

    def _open(self, family: int, kind: int, protocol: int) -> int | None:
        raw = family in _INTERNET and kind & _KIND == socket.SOCK_RAW
        if family in _FAMILIES and not raw and protocol != _SCTP:
            return None
        self._report(f"a socket of family {family}, kind {kind & _KIND}, protocol {protocol}")
        return errno.EAFNOSUPPORT

    def _judge(self, call: int, arguments: list[int], memory: int) -> int | None:
        socket_, first, size, _, name, name_size = arguments
        socket_ &= _INT
        if call == self.calls.connect:
            return self._connect(socket_, os.pread(memory, min(size, _MAX_ADDRESS), first))
        if call == self.calls.sendto:
            address = os.pread(memory, min(name_size, _MAX_ADDRESS), name)
            return self._send(socket_, address, os.pread(memory, min(size, 512), first))
        count = min(size, _MAX_MESSAGES) if call == self.calls.sendmmsg else 1
        errors = [
            self._send(socket_, *_message(memory, first + number * _MMSGHDR_SIZE))
            for number in range(count)
        ]
        return next((error for error in errors if error is not None), None)

    def _connect(self, socket_: int, address: bytes) -> int | None:
        self.asking.discard(socket_)
        host, port = _host_and_port(address)
        if host is None:
            return None
        if port == _DNS_PORT:
            self._report(f"name server {host}")
            self.asking.add(socket_)
            return 0
        return self._judge_host(host, port)

    def _send(self, socket_: int, address: bytes, data: bytes) -> int | None:
        if address[:2] == _NO_FAMILY:  # udp(7) takes it for an address of IPv4
            address = struct.pack("=H", socket.AF_INET) + address[2:]
        host, port = _host_and_port(address)
        if port == _DNS_PORT:
            self._report(f"name server {host}")
        elif host is not None:
            return self._judge_host(host, port)
        elif socket_ not in self.asking:
            return None
        if looked_up := _looked_up(data):
            self._report(f"look-up of {looked_up}")
        return errno.ECONNREFUSED

    def _judge_host(self, host: str, port: int) -> int | None:
        if ipaddress.ip_address(host).is_loopback:
            return None
        self._report(f"{host} port {port}")
        return errno.ENETUNREACH

    def _report(self, attempt: str) -> None:
        if attempt not in self.seen and len(self.seen) < MAX_ATTEMPTS:
            self.seen.add(attempt)
            os.write(self.reports, f"{attempt}\n".encode())


def _message(memory: int, place: int) -> tuple[bytes, bytes]:
    """The address of the ``struct msghdr`` at ``place``, empty if it has none; its first bytes."""
    name, name_size, pieces, count = _MSGHDR.unpack(os.pread(memory, _MSGHDR.size, place))
    address = os.pread(memory, min(name_size, _MAX_ADDRESS), name) if name else b""
    if not count:
        return address, b""
    begin, size = _PIECE.unpack(os.pread(memory, _PIECE.size, pieces))
    return address, os.pread(memory, min(size, 512), begin)


def _host_and_port(address: bytes) -> tuple[str | None, int]:
    """Of a ``struct sockaddr`` of IPv4 or IPv6; no host for another family, or for less of one."""
    family = struct.unpack_from("=H", address)[0] if len(address) >= 2 else socket.AF_UNSPEC
    if family == socket.AF_INET and len(address) >= _IPV4.size:
        port, packed = _IPV4.unpack_from(address)
        return str(ipaddress.IPv4Address(packed)), port
    if family == socket.AF_INET6 and len(address) >= _IPV6.size:
        port, packed = _IPV6.unpack_from(address)
        long = ipaddress.IPv6Address(packed)
        return str(long.ipv4_mapped or long), port
    return None, 0


def _looked_up(query: bytes) -> str | None:
    """The name that a DNS message asks for (RFC 1035 s.4.1), ``None`` if it is no such message."""
    labels, position = [], _DNS_HEADER
    while position < len(query) and (size := query[position]):
        label = query[position + 1 : position + 1 + size]
        labels.append("".join(chr(b) if 0x21 <= b < 0x7F else "?" for b in label))
        position += 1 + size
    return ".".join(labels)[:_MAX_NAME] or None
