"""Write the payload: files in, volumes and chunk digests out, each byte read once.

The payload is a plain tar whose layout is known beforehand, so any range of it can be
produced. One thread reads and one writes; one digests chunks, one whole volumes, and one each
member, so that what travels is what was recorded, and not what became of a file in the meantime.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from packager.connected.packing.layout import PayloadPlan
from packager.connected.packing.payload import Part, PayloadReader, changed
from packager.connected.packing.volume_writer import BUFFER_SIZE, VolumeWriter
from packager.errors import DigestMismatchError
from packager.format.digest import Digest
from packager.format.sizes import format_size
from packager.format.volumes import Payload, Volume
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals
from packager.store.direct import aligned_buffer

_BUFFERS = 4


@dataclass(frozen=True)
class PackedPayload:
    """What was written: the payload as the index has it, and the digest of each volume."""

    payload: Payload
    volume_digests: dict[str, Digest]


def write_payload(plan: PayloadPlan, directory: Path, progress: Progress) -> PackedPayload:
    """Write the volumes into ``directory``, each fsynced.

    Volumes that an earlier build left there are gone on with; see ``VolumeWriter``. Raises
    ``IntegrityError`` where a member is no longer what it was planned with, in size or in any
    byte, and ``NoSpaceError`` or ``HostError`` for what the system refuses.
    """
    _say_what_is_here(plan, directory, progress)
    with (
        PayloadReader(plan) as reader,
        progress.task("packing", plan.layout.size) as task,
        _Packer(plan.chunk_size, reader, task) as packer,
    ):
        digests = {v.name: packer.pack(v, directory / v.name) for v in plan.volumes}
    chunks = tuple(packer.chunks)
    return PackedPayload(Payload(plan.layout.size, plan.chunk_size, chunks), digests)


def _say_what_is_here(plan: PayloadPlan, directory: Path, progress: Progress) -> None:
    paths = [directory / volume.name for volume in plan.volumes]
    with naming_refusals(directory):
        found = sum(path.stat().st_size for path in paths if path.exists())
    if found:
        progress.note(
            f"continuing: {format_size(found)} of {format_size(plan.layout.size)} are already "
            "written; they are read again, and what is not good is written again"
        )


@dataclass
class _Slot:
    """A buffer, and what still looks at it."""

    buffer: memoryview = field(default_factory=lambda: aligned_buffer(BUFFER_SIZE))
    busy: list[Future[None]] = field(default_factory=list)

    def wait(self) -> None:
        """Return when the buffer is free; raises what went wrong with what was in it."""
        for future in self.busy:
            future.result()
        self.busy = []


class _Packer(AbstractContextManager["_Packer"]):
    """The threads and buffers that a payload goes through, and the digests of its ``chunks``."""

    def __init__(self, chunk_size: int, reader: PayloadReader, task: Task) -> None:
        self.chunks: list[Digest] = []
        self._chunk_size = chunk_size
        self._reader = reader
        self._task = task
        self._slots = [_Slot() for _ in range(_BUFFERS)]
        self._members = _MemberCheck()
        self._chunk_thread = ThreadPoolExecutor(1)
        self._volume_thread = ThreadPoolExecutor(1)
        self._member_thread = ThreadPoolExecutor(1)

    def __exit__(self, *_exc: object) -> None:
        for thread in (self._chunk_thread, self._volume_thread, self._member_thread):
            thread.shutdown(cancel_futures=True)

    def pack(self, volume: Volume, path: Path) -> Digest:
        """Write the next volume to ``path``; returns its digest."""
        state = hashlib.sha256()
        slots = cycle(self._slots)
        with VolumeWriter(path, volume.size, self._chunk_size) as writer:
            for position in range(0, volume.size, BUFFER_SIZE):
                slot = next(slots)
                slot.wait()
                piece = slot.buffer[: volume.size - position]
                parts = self._reader.fill(piece)
                slot.busy = [
                    writer.write(piece),
                    self._chunk_thread.submit(self._take_chunks, piece),
                    self._volume_thread.submit(state.update, piece),
                    *(self._member_thread.submit(self._members.take, part) for part in parts),
                ]
                self._task.advance(len(piece))
            for slot in self._slots:
                slot.wait()
            writer.finish()
        return Digest(state.hexdigest())

    def _take_chunks(self, piece: memoryview) -> None:
        # The buffer is a multiple of every chunk size, so no chunk spans two pieces.
        for start in range(0, len(piece), self._chunk_size):
            self.chunks.append(Digest.of(piece[start : start + self._chunk_size]))


class _MemberCheck:
    """Whether each member is what it was planned with, told from its parts in order."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def take(self, part: Part) -> None:
        """Take the next part; raises ``DigestMismatchError`` at the end of a changed member."""
        self._state.update(part.data)
        if part.is_last:
            found, self._state = Digest(self._state.hexdigest()), hashlib.sha256()
            if found != part.member.digest:
                raise DigestMismatchError(changed(part.member))
