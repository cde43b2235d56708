"""Put small files back: from another copy, the payload or a patch, checked before they appear."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError, IntegrityError
from packager.format.bundle import PayloadFile
from packager.format.digest import Digest
from packager.isolated.chunks import read_fully
from packager.isolated.media import Media, regular_size
from packager.isolated.patch import OpenPatch
from packager.isolated.recover import chunks_of, recover_chunks
from packager.progress import Progress, Silent, Task
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    naming_refusals,
    open_regular,
    write_all,
)
from packager.store.digests import file_digest
from packager.store.open_files import allow_open_files
from packager.trust.verify import VerifiedBundle

_BUFFER_SIZE = 1 << 20


@dataclass(frozen=True)
class Extract:
    """Bytes inside the file ``path``: ``offset`` there and ``size``."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Restoration:
    """A small file to put at ``path``, and where its bytes are."""

    path: Path
    digest: Digest
    source: Path | PayloadFile | Extract

    @property
    def size(self) -> int:
        """What it will have, in bytes."""
        return (
            (regular_size(self.source) or 0) if isinstance(self.source, Path) else self.source.size
        )


def restore(
    plan: Sequence[Restoration],
    verified: VerifiedBundle,
    media: Media,
    patches: Sequence[OpenPatch],
    progress: Progress,
) -> None:
    """Put the files of ``plan`` in their places, those first in it last, or none of them.

    One may lie in the place of another: all are written before the first appears. Raises
    ``IntegrityError`` where a source no longer gives what it gave, and ``NoSpaceError`` or
    ``HostError``.
    """
    if not plan:
        return
    allow_open_files(len(plan))
    total = sum(file.size for file in plan)
    with ExitStack() as stack, progress.task("putting small files back", total) as task:
        for file in plan:
            new = stack.enter_context(replacing(file.path))
            if isinstance(file.source, PayloadFile):
                _unpack(file.source, new.descriptor, verified, media, patches, task)
            else:
                _copy(file.source, new.descriptor, task)
            if file_digest(new.path) != file.digest:
                raise IntegrityError(
                    f"{_shown(file.source)}: gives other bytes than a moment ago",
                    hint="copy the media to a disk, then repair there",
                )


def _shown(source: Path | PayloadFile | Extract) -> Path:
    return source if isinstance(source, Path) else Path(source.path)


def _copy(source: Path | Extract, target: int, task: Task) -> None:
    place = Extract(source, 0, regular_size(source) or 0) if isinstance(source, Path) else source
    buffer = memoryview(bytearray(_BUFFER_SIZE))
    done = 0
    with open_regular(place.path) as descriptor:
        while count := read_fully(descriptor, buffer[: place.size - done], place.offset + done):
            write_all(target, buffer[:count], done)
            done += count
            task.advance(count)


def _unpack(
    file: PayloadFile,
    target: int,
    verified: VerifiedBundle,
    media: Media,
    patches: Sequence[OpenPatch],
    task: Task,
) -> None:
    """Write what can be had of ``file``, from good copies of its chunks, parity or patches."""
    bundle = verified.bundle

    def write(chunk: int, data: memoryview) -> None:
        begin, size = bundle.payload.chunk_range(chunk)
        start, end = max(file.offset, begin), min(file.end, begin + size)
        if start < end:
            write_all(target, data[start - begin : end - begin], start - file.offset)

    with Silent().task(file.path, file.size) as unheard:  # it would count whole chunks
        chunks = chunks_of(bundle, file)
        recover_chunks(verified, media, chunks, good=write, task=unheard, patches=patches)
    task.advance(file.size)


@dataclass(frozen=True)
class NewFile:
    """A file being written under a temporary name."""

    path: Path
    descriptor: int


@contextmanager
def replacing(path: Path) -> Iterator[NewFile]:
    """A file to write that takes the place of what is at ``path`` if the block succeeds.

    An empty directory there goes, too; :func:`check_way` refuses any other before.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with naming_refusals(path):
        # Whatever lies under this name is a dead process's, or a trap: never written into.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with naming_refusals(path):
            yield NewFile(temporary, descriptor)
            os.fsync(descriptor)
            if _is_directory(path):
                path.rmdir()
            temporary.rename(path)
            fsync_directory(path.parent)
    except BaseException:  # an interrupt too must leave nothing; it is raised again
        with suppress(OSError):  # the first error is what counts
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def check_way(path: Path) -> None:
    """Raise ``HostError`` where a directory with things in it has the name of a file to write."""
    with naming_refusals(path):
        if _is_directory(path) and any(path.iterdir()):
            raise HostError(
                f"{path}: a directory with things in it, where a file of the bundle belongs",
                hint="look at what is in it, and move it away; then this again",
            )


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
