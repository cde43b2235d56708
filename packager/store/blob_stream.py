"""Blobs whose bytes come in order, on their way to the disk past the page cache.

That costs a fraction of writing through it, keeps what others have in it, and has the disk busy
from the start. The bytes are gathered in buffers that a device can write from, each of which lies
as its part of the file does; a thread of its own writes them.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from packager.errors import AirpackError
from packager.store.atomic import naming_refusals
from packager.store.direct import aligned_buffer
from packager.store.partials import IncomingBlob

_BUFFER_SIZE = 1 << 20
_BUFFERS = 4
_SYNC_SIZE = 64 << 20  # bytes that may wait in the page cache, where they must go through it


@dataclass
class _Slot:
    """A buffer: its place in the file ``blob``, what of it is filled, and who still writes it."""

    buffer: memoryview = field(default_factory=lambda: aligned_buffer(_BUFFER_SIZE))
    blob: IncomingBlob | None = None
    place: int = 0  # in the file, of the buffer's first byte
    begin: int = 0
    end: int = 0
    writing: Future[None] | None = None

    def takes(self, blob: IncomingBlob, offset: int) -> bool:
        """Whether the byte at ``offset`` of ``blob`` comes next here."""
        return self.blob is blob and self.end < _BUFFER_SIZE and self.place + self.end == offset

    def wait(self) -> None:
        """Return when the buffer is free; raises what kept it from being written."""
        if self.writing:
            self.writing.result()
            self.writing = None

    def start(self, blob: IncomingBlob, offset: int) -> None:
        """Be filled with what begins at ``offset`` of ``blob``."""
        self.blob = blob
        self.begin = self.end = offset % _BUFFER_SIZE
        self.place = offset - self.begin

    def fill(self, data: memoryview) -> int:
        """Take as much of ``data`` as there is room for; returns how many bytes that was."""
        count = min(len(data), _BUFFER_SIZE - self.end)
        self.buffer[self.end : self.end + count] = data[:count]
        self.end += count
        return count


class BlobStream(AbstractContextManager["BlobStream"]):
    """Writes what one thread at a time gives it.

    Leaving the block writes what waits; after an error too, for whoever goes on.
    """

    def __init__(self) -> None:
        self._slots = [_Slot() for _ in range(_BUFFERS)]
        self._cached = 0
        self._thread = ThreadPoolExecutor(1)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            self._send()
            for slot in self._slots:
                slot.wait()
        except AirpackError:
            if error is None:
                raise
            # The first error is what counts: a full disk refuses the rest as well.
        finally:
            self._thread.shutdown()

    def write(self, blob: IncomingBlob, data: memoryview, offset: int) -> None:
        """Take ``data``, which belongs at ``offset`` of ``blob``; it may change afterwards.

        What goes on where the last one ended goes with it. Raises ``NoSpaceError``,
        ``IntegrityError`` or ``HostError``, perhaps for what came earlier.
        """
        while data:
            if not self._slots[0].takes(blob, offset):
                self._send()
                self._slots[0].wait()
                self._slots[0].start(blob, offset)
            count = self._slots[0].fill(data)
            data, offset = data[count:], offset + count

    def _send(self) -> None:
        """Have the first buffer written, if there is anything in it; the next one is now first."""
        slot = self._slots[0]
        if slot.blob is None:
            return
        slot.writing = self._thread.submit(self._put, slot.blob, slot)
        slot.blob = None
        self._slots.append(self._slots.pop(0))

    def _put(self, blob: IncomingBlob, slot: _Slot) -> None:
        data = slot.buffer[slot.begin : slot.end]
        self._cached += blob.write_direct(data, slot.place + slot.begin)
        if self._cached >= _SYNC_SIZE:
            self._cached = 0
            with naming_refusals(blob.path):
                os.fdatasync(blob.descriptor)
