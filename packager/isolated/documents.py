"""The documents beside the index, each the first copy that is as the sums have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from packager.errors import AirpackError, MalformedError
from packager.format.digest import Digest
from packager.format.sums import spare_name
from packager.isolated.media import Media
from packager.progress import Progress
from packager.store.atomic import read_capped

T = TypeVar("T")


def read_listed(
    media: Media,
    sums: Mapping[str, Digest],
    name: str,
    max_size: int,
    parse: Callable[[bytes], T],
    progress: Progress,
) -> T | None:
    """What ``parse`` makes of the file ``name``, of at most ``max_size`` bytes.

    ``None`` where the ``sums`` do not list it; and, with a note, where no copy is as they have it,
    or it is not of the form that this airpack reads.
    """
    if name not in sums:
        return None
    for path in (*media.copies(name), *media.copies(spare_name(name))):
        try:
            data = read_capped(path, max_size)
        except AirpackError:
            continue
        if Digest.of(data) == sums[name]:
            return _parsed(parse, data, progress)
    progress.note(f"{name}: no copy here is as the sums have it; what it says is left out")
    return None


def _parsed(parse: Callable[[bytes], T], data: bytes, progress: Progress) -> T | None:
    try:
        return parse(data)
    except MalformedError as error:
        progress.note(f"{error.message}; what it says is left out")
        return None
