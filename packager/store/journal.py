"""The record of what happened on this host: one line an event, each bound to the line before.

A line is canonical JSON and a line feed. Its field ``previous`` is the digest of the whole line
before it (of nothing, for the first), so that an edited, cut or reordered line shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.errors import IntegrityError, MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.timestamps import format_timestamp
from packager.store.atomic import fsync_directory, naming_refusals, write_all

MAX_LINE_SIZE = 1 << 16
_NOTHING = Digest.of(b"")


@dataclass(frozen=True)
class Event:
    """One line: when (this host's clock), what, and its details."""

    time: str
    what: str
    details: Mapping[str, Json]


def append_event(log: Path, what: str, details: Mapping[str, Json], *, now: datetime) -> None:
    """Write one event behind the last one, and fsync it.

    A last line without its line feed was cut short by a crash before it counted: it goes.
    Raises ``MalformedError`` for details that are too large, ``NoSpaceError`` or ``HostError``;
    then the log is as it was.
    """
    with naming_refusals(log):
        descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            size, last = _last_line(descriptor, log)
            line = _encode_line(what, details, last, now)
            os.ftruncate(descriptor, size)
            try:
                write_all(descriptor, line, size)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        fsync_directory(log.parent)


def _encode_line(what: str, details: Mapping[str, Json], last: bytes, now: datetime) -> bytes:
    line: dict[str, Json] = {
        "time": format_timestamp(now),
        "event": what,
        "previous": (Digest.of(last) if last else _NOTHING).hex,
        "details": dict(details),
    }
    data = canonical.encode(line) + b"\n"
    if len(data) > MAX_LINE_SIZE:
        raise MalformedError(f"the record of {what}: {len(data)} bytes, more than {MAX_LINE_SIZE}")
    return data


def read_events(log: Path) -> tuple[Event, ...]:
    """Every event, oldest first; raises ``IntegrityError`` at the first line that does not fit."""
    if not log.exists():
        return ()
    events = []
    previous = _NOTHING
    with naming_refusals(log), log.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_SIZE + 1):
            number += 1
            events.append(_parse_line(line, previous, f"{log}: line {number}"))
            previous = Digest.of(line)
    return tuple(events)


def _parse_line(line: bytes, previous: Digest, what: str) -> Event:
    if not line.endswith(b"\n"):
        raise IntegrityError(f"{what}: cut short")
    try:
        fields = Fields.of(canonical.decode(line[:-1], what=what, max_size=MAX_LINE_SIZE), what)
        fields.only("time", "event", "previous", "details")
        event = Event(fields.text("time"), fields.text("event"), _details(fields))
        if fields.digest("previous") != previous:
            raise IntegrityError(f"{what}: does not follow the line before it; the log was edited")
    except MalformedError as error:
        raise IntegrityError(f"{error.message}; the log was edited") from None
    return event


def _details(fields: Fields) -> Mapping[str, Json]:
    details: Mapping[str, Json] = dict(fields.mapping("details").values)  # type: ignore[arg-type]
    return details


def _last_line(descriptor: int, log: Path) -> tuple[int, bytes]:
    """The size up to the last line feed, and the last whole line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE_SIZE)
    tail = os.pread(descriptor, size - start, start)
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(tail) - len(whole) > MAX_LINE_SIZE:
        raise IntegrityError(f"{log}: ends with no line of a log; the log was edited")
    last = whole[whole[:-1].rfind(b"\n") + 1 :]
    return start + len(whole), last
