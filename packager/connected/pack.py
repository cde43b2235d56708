"""Write the payload: files in, volumes and chunk digests out, each byte read once.

The payload is a plain tar whose layout is known beforehand, so any range of it can be
produced. One thread reads, digests chunks and writes; a second digests whole volumes; a third
digests each member, so that what travels is what was recorded, and not what became of a file
in the meantime.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from packager.connected.layout import Member, PayloadPlan
from packager.errors import DigestMismatchError, IntegrityError
from packager.format.digest import Digest
from packager.format.volumes import Payload, Volume
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals, open_regular

_BUFFER_SIZE = 4 << 20
_BUFFERS = 3


@dataclass(frozen=True)
class PackedPayload:
    """What was written: the payload as the index has it, and the digest of each volume."""

    payload: Payload
    volume_digests: dict[str, Digest]


def write_payload(plan: PayloadPlan, directory: Path, progress: Progress) -> PackedPayload:
    """Write the volumes into ``directory``, each fsynced.

    Raises ``IntegrityError`` where a member is no longer what it was planned with, in size or
    in any byte, and ``NoSpaceError`` or ``HostError`` for what the system refuses.
    """
    chunks: list[Digest] = []
    digests: dict[str, Digest] = {}
    with (
        _PayloadReader(plan) as reader,
        ThreadPoolExecutor(1) as hasher,
        progress.task("packing", plan.layout.size) as task,
    ):
        for volume in plan.volumes:
            writer = _VolumeWriter(volume, plan.chunk_size, reader, hasher, task)
            digests[volume.name] = writer.write(directory / volume.name, chunks)
    return PackedPayload(Payload(plan.layout.size, plan.chunk_size, tuple(chunks)), digests)


@dataclass(frozen=True)
class _VolumeWriter:
    volume: Volume
    chunk_size: int
    reader: _PayloadReader
    hasher: ThreadPoolExecutor
    task: Task

    def write(self, path: Path, chunks: list[Digest]) -> Digest:
        """Write the volume to ``path``, appending its chunks' digests; returns its own."""
        state = hashlib.sha256()
        buffers = [memoryview(bytearray(_BUFFER_SIZE)) for _ in range(_BUFFERS)]
        busy: list[list[Future[None]]] = [[]] * _BUFFERS
        with naming_refusals(path), open(path, "wb", buffering=0) as stream:
            for index, position in enumerate(range(0, self.volume.size, _BUFFER_SIZE)):
                slot = index % _BUFFERS
                _wait(busy[slot])
                piece = buffers[slot][: min(_BUFFER_SIZE, self.volume.size - position)]
                checks = self.reader.fill(piece, self.volume.offset + position)
                busy[slot] = [self.hasher.submit(state.update, piece), *checks]
                chunks.extend(self._chunk_digests(piece))
                _write_all(stream.fileno(), piece)
                self.task.advance(len(piece))
            for futures in busy:
                _wait(futures)
            os.fsync(stream.fileno())
        return Digest(state.hexdigest())

    def _chunk_digests(self, piece: memoryview) -> Iterator[Digest]:
        # The buffer is a multiple of every chunk size, so no chunk spans two pieces.
        for start in range(0, len(piece), self.chunk_size):
            yield Digest.of(piece[start : start + self.chunk_size])


@dataclass(frozen=True)
class _Segment:
    """A range of the payload, from ``start``, that is some bytes or a member's content."""

    start: int
    size: int
    content: bytes | Member


def _segments(plan: PayloadPlan) -> Iterator[_Segment]:
    """The payload in order: headers with the padding before them, members, the end."""
    padding = b""
    position = 0
    for member, entry in zip(plan.members, plan.layout.entries, strict=True):
        yield _Segment(position, len(padding) + len(entry.header), padding + entry.header)
        yield _Segment(entry.offset, entry.size, member)
        position = entry.offset + entry.size
        padding = bytes(entry.end - position)
    yield _Segment(position, plan.layout.size - position, bytes(plan.layout.size - position))


class _PayloadReader(AbstractContextManager["_PayloadReader"]):
    """The payload as it will be, read once from start to end without its being anywhere."""

    def __init__(self, plan: PayloadPlan) -> None:
        self._segments = _segments(plan)
        self._segment = _Segment(0, 0, b"")
        self._file = ExitStack()
        self._descriptor = -1
        self._checker = ThreadPoolExecutor(1)
        self._state = hashlib.sha256()
        self._checks: list[Future[None]] = []

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self._checker.shutdown()

    def fill(self, buffer: memoryview, offset: int) -> list[Future[None]]:
        """Fill ``buffer`` with the payload's bytes from ``offset`` on.

        Until what is returned is done, ``buffer`` is still looked at; its ``result`` raises
        ``DigestMismatchError`` for a member that ended here and is not what was planned.
        """
        self._checks = []
        done = 0
        while done < len(buffer):
            inside = offset + done - self._segment.start
            size = min(self._segment.size - inside, len(buffer) - done)
            if size <= 0:
                self._advance()
                continue
            self._read(buffer[done : done + size], inside)
            done += size
        return self._checks

    def _read(self, view: memoryview, position: int) -> None:
        content = self._segment.content
        if isinstance(content, bytes):
            view[:] = content[position : position + len(view)]
        else:
            _read_exactly(self._descriptor, view, position, content)
            self._checks.append(self._checker.submit(self._state.update, view))

    def _advance(self) -> None:
        self._file.close()
        if isinstance(self._segment.content, Member):
            # The one thread takes this up after all the updates.
            check = self._checker.submit(_check_digest, self._segment.content, self._state)
            self._checks.append(check)
        self._segment = next(self._segments)
        member = self._segment.content
        if isinstance(member, Member):
            self._state = hashlib.sha256()
            self._descriptor = self._file.enter_context(open_regular(member.source))
            if os.fstat(self._descriptor).st_size != member.size:
                raise IntegrityError(f"{member.source}: changed while it was being packed")


def _check_digest(member: Member, state: hashlib._Hash) -> None:
    if Digest(state.hexdigest()) != member.digest:
        raise DigestMismatchError(f"{member.source}: changed while it was being packed")


def _read_exactly(descriptor: int, view: memoryview, position: int, member: Member) -> None:
    with naming_refusals(member.source):
        while view:
            count = os.preadv(descriptor, [view], position)
            if count == 0:
                raise IntegrityError(f"{member.source}: changed while it was being packed")
            view, position = view[count:], position + count


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _wait(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()
