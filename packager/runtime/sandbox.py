"""Cut this process off from every network, where the kernel lets an ordinary user do so.

In a network namespace of its own a process has its own interfaces, routes and ports: none but
a loopback that reaches only itself. (network_namespaces(7), user_namespaces(7).)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

# RFC 5737 and RFC 3849: addresses for documentation, never anyone's.
_OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_UNREACHABLE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True)
class Egress:
    """What is known of the engine's use of the network.

    ``namespace``: the engine ran in a network namespace of its own, seen from inside to hold
    nothing but its own loopback, and from which an outside address could not be reached. What
    it opened by itself could then not leave the host through any interface. Not covered: Unix
    sockets that have a path, files on network filesystems, and a process that has the
    privilege to enter another namespace.

    ``attempts``: what it was seen to reach for beyond loopback, all of which was refused, as
    ``192.0.2.1 port 443`` or ``look-up of example.org``. ``watched``: whether anything looked;
    if not, that there are no attempts says something only where ``namespace`` is true.
    """

    namespace: bool
    attempts: tuple[str, ...] = ()
    watched: bool = False


def enter_namespace() -> bool:
    """Give this process, still of one thread, a network of its own; false where refused.

    Tried in a child first, since half of it cannot be undone.
    """
    child = os.fork()
    if child == 0:
        os._exit(0 if _unshare() else 1)
    _, status = os.waitpid(child, 0)
    return status == 0 and _unshare()


def is_cut_off() -> bool:
    """Whether this process sees no interface but loopback, and no way out of the host."""
    return _interfaces() == {"lo"} and not any(_can_reach(*outside) for outside in _OUTSIDE)


def _unshare() -> bool:
    try:
        if not (os.geteuid() == 0 and _unshared(_CLONE_NEWNET)):
            _unshare_as_user()
        _bring_up("lo")
    except OSError:
        return False
    return True


def _unshared(flags: int) -> bool:
    return int(ctypes.CDLL(None, use_errno=True).unshare(flags)) == 0


def _unshare_as_user() -> None:
    """Own a user namespace, in which a network namespace may be made; stay the same user."""
    user, group = os.geteuid(), os.getegid()
    if not _unshared(_CLONE_NEWUSER | _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    # user_namespaces(7): without privilege outside, a group map needs setgroups denied first.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def _bring_up(interface: str) -> None:
    # netdevice(7): struct ifreq is a 16-byte name and, for these calls, 16-bit flags.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", interface.encode("ascii"), 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        request = struct.pack("16sH14x", interface.encode("ascii"), flags | _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)


def _interfaces() -> set[str]:
    """The names in ``/proc/self/net/dev``, two heading lines left out; empty if unreadable."""
    try:
        lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return set()
    return {line.partition(":")[0].strip() for line in lines}


def _can_reach(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect((address, 9))
    except OSError as error:
        return error.errno not in _UNREACHABLE
    return True
