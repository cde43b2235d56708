"""Going on with an interrupted install: what is here of its files already, and good.

Nothing says how far the interrupted one got, and a power cut may leave anything. So what lies
here is read again, and a chunk counts only if it has its signed digest now.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from packager.format.bundle import Bundle, PayloadFile
from packager.isolated.chunks import Run, group_chunks, open_all, read_runs
from packager.progress import Progress
from packager.store.home import Home
from packager.store.open_files import allow_open_files
from packager.store.partials import find_partial, room_taken
from packager.trust.verify import VerifiedBundle


def room_of(home: Home, file: PayloadFile) -> int:
    """The bytes of disk that ``file`` takes already, of those it will take."""
    path = find_partial(home, file.digest)
    return min(room_taken(path), file.size) if path else 0


def chunks_here(
    verified: VerifiedBundle, files: Sequence[PayloadFile], home: Home, progress: Progress
) -> frozenset[int]:
    """The chunks of ``files`` that earlier installs have left here, each with its signed digest.

    A chunk at the edge of a file, with bytes of a neighbour or a tar header, is not among them.
    Where there is nothing, nothing is read. The caller holds the home's lock.
    """
    found = ((file, find_partial(home, file.digest)) for file in files)
    places = {file: path for file, path in found if path is not None}
    if not places:
        return frozenset()
    allow_open_files(len(places))
    bundle = verified.bundle
    here: list[int] = []
    with open_all({file.digest.hex: path for file, path in places.items()}) as descriptors:
        parts = [_find_written(bundle, file, descriptors[file.digest.hex]) for file in places]
        total = sum(len(part.chunks) for part in parts) * bundle.payload.chunk_size
        with progress.task("checking what is here already", total) as task:
            read_runs(
                verified,
                chain.from_iterable(_runs(bundle, part) for part in parts),
                good=lambda chunk, _data: here.append(chunk),
                bad=_pass_over,
                task=task,
            )
    return frozenset(here)


def _pass_over(_chunk: int) -> None:
    """Nothing to do: it comes from the medium."""


@dataclass(frozen=True)
class _Part:
    """The ``chunks`` of ``file`` that may be whole in its part, open as ``descriptor``."""

    file: PayloadFile
    descriptor: int
    chunks: Sequence[int]


def _find_written(bundle: Bundle, file: PayloadFile, descriptor: int) -> _Part:
    """Take the chunks that lie within ``file`` whole, and are no hole in what is here of it."""
    size = bundle.payload.chunk_size
    inside = range(-(-file.offset // size), file.end // size)
    written = [c for c in inside if _has_data(descriptor, c * size - file.offset, size)]
    return _Part(file, descriptor, written)


def _runs(bundle: Bundle, part: _Part) -> Iterator[Run]:
    size = bundle.payload.chunk_size
    for first, count in group_chunks(part.chunks, size):
        yield Run(part.descriptor, first, first * size - part.file.offset, count * size)


def _has_data(descriptor: int, offset: int, size: int) -> bool:
    """Whether anything was written to those bytes; where no one knows of holes, it was."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) < offset + size
    except OSError as error:
        return error.errno != errno.ENXIO  # lseek(2): no data from there to the end
