"""Write the payload: files in, volumes and chunk digests out, each byte read once.

The payload is a plain tar whose layout is known beforehand, so any range of it can be
produced; one thread reads, digests chunks and writes, another digests whole volumes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from packager.errors import IntegrityError
from packager.format.bundle import (
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    Payload,
    PayloadFile,
    Volume,
    volume_name,
)
from packager.format.digest import Digest
from packager.format.tar import TarLayout, plan_tar
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals, open_regular

FAT32_MAX_FILE_SIZE = (1 << 32) - 1
_CHUNKS_AIMED_AT = 1 << 14
_BUFFER_SIZE = 4 << 20
_BUFFERS = 3


@dataclass(frozen=True)
class Member:
    """A file to pack: its path in the payload, where it lies now, and what it must be."""

    path: str
    source: Path
    size: int
    digest: Digest


@dataclass(frozen=True)
class PayloadPlan:
    """Where everything will lie, decided before anything is written. Sizes in bytes."""

    members: tuple[Member, ...]
    layout: TarLayout
    chunk_size: int
    volumes: tuple[Volume, ...]

    @property
    def files(self) -> tuple[PayloadFile, ...]:
        """The index's view of the members."""
        pairs = zip(self.members, self.layout.entries, strict=True)
        return tuple(PayloadFile(m.path, m.size, e.offset, m.digest) for m, e in pairs)


@dataclass(frozen=True)
class PackedPayload:
    """What was written: the payload as the index has it, and the digest of each volume."""

    payload: Payload
    volume_digests: dict[str, Digest]


def plan_payload(members: Sequence[Member], max_volume_size: int | None) -> PayloadPlan:
    """Lay out ``members``; volumes of at most ``max_volume_size``, or what FAT32 can hold."""
    layout = plan_tar((member.path, member.size) for member in members)
    chunk_size = choose_chunk_size(layout.size)
    limit = min(max_volume_size or FAT32_MAX_FILE_SIZE, FAT32_MAX_FILE_SIZE)
    volume_size = max(limit // chunk_size, 1) * chunk_size
    volumes = tuple(
        Volume(volume_name(number), min(volume_size, layout.size - offset), offset)
        for number, offset in enumerate(range(0, layout.size, volume_size), start=1)
    )
    return PayloadPlan(tuple(members), layout, chunk_size, volumes)


def choose_chunk_size(payload_size: int) -> int:
    """The power of two, within the format's bounds, that gives about 16,384 chunks."""
    size = MIN_CHUNK_SIZE
    while size < MAX_CHUNK_SIZE and size * _CHUNKS_AIMED_AT < payload_size:
        size *= 2
    return size


def write_payload(plan: PayloadPlan, directory: Path, progress: Progress) -> PackedPayload:
    """Write the volumes into ``directory``, each fsynced.

    Raises ``IntegrityError`` where a member is no longer the size it was planned with, and
    ``NoSpaceError`` or ``HostError`` for what the system refuses.
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
        busy: list[Future[None] | None] = [None] * _BUFFERS
        with naming_refusals(path), open(path, "wb", buffering=0) as stream:
            for index, position in enumerate(range(0, self.volume.size, _BUFFER_SIZE)):
                slot = index % _BUFFERS
                _wait(busy[slot])
                piece = buffers[slot][: min(_BUFFER_SIZE, self.volume.size - position)]
                self.reader.fill(piece, self.volume.offset + position)
                busy[slot] = self.hasher.submit(state.update, piece)
                chunks.extend(self._chunk_digests(piece))
                _write_all(stream.fileno(), piece)
                self.task.advance(len(piece))
            for future in busy:
                _wait(future)
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
        self._stack = ExitStack()
        self._segment = _Segment(0, 0, b"")
        self._descriptor = -1

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with the payload's bytes from ``offset`` on."""
        done = 0
        while done < len(buffer):
            inside = offset + done - self._segment.start
            size = min(self._segment.size - inside, len(buffer) - done)
            if size <= 0:
                self._advance()
                continue
            self._read(buffer[done : done + size], inside)
            done += size

    def _read(self, view: memoryview, position: int) -> None:
        content = self._segment.content
        if isinstance(content, bytes):
            view[:] = content[position : position + len(view)]
        else:
            _read_exactly(self._descriptor, view, position, content)

    def _advance(self) -> None:
        self._stack.close()
        self._segment = next(self._segments)
        member = self._segment.content
        if isinstance(member, Member):
            self._descriptor = self._stack.enter_context(open_regular(member.source))
            if os.fstat(self._descriptor).st_size != member.size:
                raise IntegrityError(f"{member.source}: changed while it was being packed")


def _read_exactly(descriptor: int, view: memoryview, position: int, member: Member) -> None:
    while view:
        count = os.preadv(descriptor, [view], position)
        if count == 0:
            raise IntegrityError(f"{member.source}: changed while it was being packed")
        view, position = view[count:], position + count


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _wait(future: Future[None] | None) -> None:
    if future is not None:
        future.result()
