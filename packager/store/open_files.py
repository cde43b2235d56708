"""How many files this process may hold open at once: a bundle of many parts needs them all."""

from __future__ import annotations

import resource

from packager.errors import HostError

_OTHERS = 128  # the streams, the lock, the log, libraries, and what the engine opens


def allow_open_files(count: int) -> None:
    """Raise this process's own limit to ``count`` files and the usual others.

    Raises ``HostError`` where the host allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise HostError(
            f"{needed} files must be open at once; this host allows {hard}",
            hint=f"ulimit -Hn {needed}, as root, then run this again from the same shell",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
