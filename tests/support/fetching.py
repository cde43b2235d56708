"""What fetching left: looked up in a lock and in a cache."""

from __future__ import annotations

from packager.connected.cache import Cache
from packager.format.lock import Lock, LockedFile
from support.tiny_source import WEIGHTS


def locked_weights(lock: Lock) -> LockedFile:
    """What the lock says of the weights."""
    return next(file for file in lock.files if file.path == WEIGHTS)


def leftovers(cache: Cache) -> list[str]:
    """The names of the files that came in part."""
    return sorted(path.name for path in (cache.root / "partial").glob("*"))
