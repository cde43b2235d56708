"""What was made before and is in the cache: found as it was kept, or made again.

Beside each artefact lies its digest. Of one that was damaged since, a model would still load, a
figure still be a number, and all of it would be signed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from packager.connected.cache import Cache
from packager.errors import IntegrityError, MalformedError, NoSpaceError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.sizes import format_size
from packager.progress import Progress
from packager.store.atomic import make_directory, naming_refusals, read_capped, write_file
from packager.store.digests import file_digest

T = TypeVar("T")

_SUM_SUFFIX = ".sha256"
_SUM_SIZE = 64


@dataclass(frozen=True)
class Artefact:
    """A file of the cache, and the digest that it had when it was made."""

    path: Path
    digest: Digest


def recorded_file(cache: Cache, key: Digest, suffix: str) -> Artefact | None:
    """The artefact that the cache says it has; its bytes are not read."""
    path, sum_path = cache.derived(key, suffix), cache.derived(key, suffix + _SUM_SUFFIX)
    if not (path.exists() and sum_path.exists()):
        return None
    try:
        return Artefact(path, Digest(read_capped(sum_path, _SUM_SIZE).decode("ascii", "replace")))
    except IntegrityError:  # no digest, or more than one
        return None


def find_file(
    cache: Cache, key: Digest, suffix: str, *, name: str, progress: Progress
) -> Artefact | None:
    """The artefact made from ``key``, if it is what it was; its bytes are read.

    ``name`` is what people call it. A damaged one is told of.
    """
    recorded = recorded_file(cache, key, suffix)
    if recorded is None:
        return None
    with progress.task(f"checking {name}", recorded.path.stat().st_size) as task:
        if file_digest(recorded.path, task) == recorded.digest:
            return recorded
    _tell_damage(recorded.path, name, progress)
    return None


def keep_file(
    cache: Cache, key: Digest, suffix: str, temporary: Path, *, name: str, progress: Progress
) -> Artefact:
    """Make what was written to ``temporary`` the artefact of ``key``; it is read for its digest."""
    with progress.task(f"reading back {name}", temporary.stat().st_size) as task:
        digest = file_digest(temporary, task)
    write_file(cache.derived(key, suffix + _SUM_SUFFIX), digest.hex.encode("ascii"))
    return Artefact(cache.publish(temporary, key, suffix), digest)


def find_bytes(
    cache: Cache, key: Digest, suffix: str, *, most: int, name: str, progress: Progress
) -> bytes | None:
    """The small artefact made from ``key``, of at most ``most`` bytes, if it is what it was."""
    recorded = recorded_file(cache, key, suffix)
    if recorded is None:
        return None
    try:
        data = read_capped(recorded.path, most)
        if Digest.of(data) == recorded.digest:
            return data
    except IntegrityError:  # grown beyond the limit
        pass
    _tell_damage(recorded.path, name, progress)
    return None


def keep_bytes(cache: Cache, key: Digest, suffix: str, data: bytes) -> None:
    """Make ``data`` the artefact of ``key``."""
    path = cache.derived(key, suffix)
    make_directory(path.parent)
    write_file(cache.derived(key, suffix + _SUM_SUFFIX), Digest.of(data).hex.encode("ascii"))
    write_file(path, data)


def find_document(
    cache: Cache,
    key: Digest,
    suffix: str,
    parse: Callable[[Fields], T],
    *,
    most: int,
    name: str,
    progress: Progress,
) -> T | None:
    """What ``parse`` reads in the JSON document made from ``key``, if that is what it was."""
    data = find_bytes(cache, key, suffix, most=most, name=name, progress=progress)
    if data is None:
        return None
    path = cache.derived(key, suffix)
    try:
        document = canonical.decode(data, what=str(path), max_size=most)
        return parse(Fields.of(document, str(path), MalformedError))
    except MalformedError:  # as another version of airpack wrote it
        _tell_damage(path, name, progress)
        return None


def keep_document(cache: Cache, key: Digest, suffix: str, document: Json) -> None:
    """Make the JSON ``document`` the artefact of ``key``."""
    keep_bytes(cache, key, suffix, canonical.encode(document))


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse before an hour of work what the disk of ``folder`` has no room for.

    ``purpose`` says what ``needed`` bytes are for. Raises ``NoSpaceError``, ``HostError``.
    """
    make_directory(folder)
    with naming_refusals(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoSpaceError(
            f"{folder}: {format_size(needed)} {purpose}, and {format_size(free)} free",
            hint="free some space, or set AIRPACK_CACHE to a folder on a larger disk",
        )


def _tell_damage(path: Path, name: str, progress: Progress) -> None:
    progress.note(f"{path}: damaged in the cache; making {name} again")
