"""The payload as it will be, read from the files that go into it, without its being anywhere."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from packager.connected.packing.layout import Member, PayloadPlan
from packager.errors import IntegrityError
from packager.format.tar import END_SIZE
from packager.store.atomic import naming_refusals, open_regular


@dataclass(frozen=True)
class Part:
    """Bytes of a member, in a buffer that the payload was read into; ``is_last``: it ends here."""

    member: Member
    data: memoryview
    is_last: bool


@dataclass(frozen=True)
class _Segment:
    """A range of the payload, from ``start``, that is some bytes or a member's content."""

    start: int
    size: int
    content: bytes | Member


class PayloadReader(AbstractContextManager["PayloadReader"]):
    """The payload from ``offset`` on, read in order.

    Raises ``IntegrityError`` for a member that has not the size it was planned with, and
    ``HostError`` for what the system refuses.
    """

    def __init__(self, plan: PayloadPlan, offset: int = 0) -> None:
        self._file = ExitStack()
        self._descriptor = -1
        self._segments = _segments(plan, offset)
        self._enter(next(self._segments))
        self._left -= max(0, offset - self._segment.start)

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def fill(self, buffer: memoryview) -> Sequence[Part]:
        """Fill ``buffer`` with the next bytes; returns those of members, an empty one's too."""
        parts: list[Part] = []
        done = 0
        while done < len(buffer):
            view = buffer[done : done + self._left]
            position = self._segment.size - self._left
            done += len(view)
            self._left -= len(view)
            content = self._segment.content
            if isinstance(content, bytes):
                view[:] = content[position : position + len(view)]
            else:
                _read_exactly(self._descriptor, view, position, content)
                parts.append(Part(content, view, is_last=self._left == 0))
            if self._left == 0:
                self._enter(next(self._segments))
        return parts

    def _enter(self, segment: _Segment) -> None:
        self._file.close()
        self._segment, self._left = segment, segment.size
        member = segment.content
        if isinstance(member, Member):
            self._descriptor = self._file.enter_context(open_regular(member.source))
            if os.fstat(self._descriptor).st_size != member.size:
                raise IntegrityError(changed(member))


def _segments(plan: PayloadPlan, offset: int) -> Iterator[_Segment]:
    """What the payload consists of, from what ``offset`` lies in on, and nothing at its end."""
    entries = plan.layout.entries
    first = max(0, bisect_right(entries, offset, key=lambda entry: entry.header_offset) - 1)
    for segment in _all_segments(plan, first):
        if segment.start >= offset or segment.start + segment.size > offset:
            yield segment
    yield _Segment(plan.layout.size, 0, b"")


def _all_segments(plan: PayloadPlan, first: int) -> Iterator[_Segment]:
    """From the entry ``first`` on: headers, members with the padding behind them, the end."""
    entries = plan.layout.entries
    for member, entry in zip(plan.members[first:], entries[first:], strict=True):
        end = entry.offset + entry.size
        yield _Segment(entry.header_offset, len(entry.header), entry.header)
        yield _Segment(entry.offset, entry.size, member)
        yield _Segment(end, entry.end - end, bytes(entry.end - end))
    yield _Segment(plan.layout.size - END_SIZE, END_SIZE, bytes(END_SIZE))


def _read_exactly(descriptor: int, view: memoryview, position: int, member: Member) -> None:
    with naming_refusals(member.source):
        while view:
            count = os.preadv(descriptor, [view], position)
            if count == 0:
                raise IntegrityError(changed(member))
            view, position = view[count:], position + count


def changed(member: Member) -> str:
    """What to say of a member that is not what it was planned with."""
    return f"{member.source}: changed while it was being packed"
