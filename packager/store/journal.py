"""The record of what happened on this host: one line an event, each bound to the line before.

A line is canonical JSON and a line feed. Its field ``previous`` is the digest of the whole line
before it (of nothing, for the first), so that an edited, cut or reordered line shows. How many
lines there were, and the digest of the last, stands in a file beside the log, so that a cut end
shows too. That file follows the log: a crash between the two leaves it a line behind. Only of the
first line it goes ahead, so that no log is ever without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.errors import AirpackError, IntegrityError, MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.receipt import LogHead
from packager.format.timestamps import format_timestamp
from packager.store.atomic import (
    fsync_directory,
    naming_refusals,
    read_capped,
    write_all,
    write_file,
)

MAX_LINE_SIZE = 1 << 16
_NOTHING = Digest.of(b"")
_MAX_HEAD_SIZE = 1 << 10


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
            if not last and not _head_path(log).exists():
                write_file(_head_path(log), _encode_head(LogHead(0, _NOTHING)))
            try:
                write_all(descriptor, line, size)
                os.fsync(descriptor)
                fsync_directory(log.parent)
            except BaseException:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    # The line counts. A head that stays behind it, on a full disk, hides no cut but of this line.
    with suppress(AirpackError):
        write_file(_head_path(log), _encode_head(log_head(log)))


def log_head(log: Path) -> LogHead:
    """How many events the log has, and the digest of the last one's line."""
    events, last = 0, b""
    with naming_refusals(log):
        if log.exists():
            with log.open("rb") as stream:
                for line in stream:
                    if line.endswith(b"\n"):  # else it was cut short by a crash, and will go
                        events, last = events + 1, line
    return LogHead(events, Digest.of(last))


def _head_path(log: Path) -> Path:
    return log.with_name(f"{log.name}.head")


def _encode_head(head: LogHead) -> bytes:
    return canonical.encode({"events": head.events, "digest": head.digest.hex})


def _check_holds(log: Path, digests: Sequence[Digest], head: LogHead, what: str) -> None:
    """Raise ``IntegrityError`` unless the log, of lines with ``digests``, goes on from ``head``."""
    if head.events == 0:
        return
    if len(digests) < head.events:
        raise IntegrityError(
            f"{log}: cut: {len(digests)} events, and {what} has seen {head.events}"
        )
    if digests[head.events - 1] != head.digest:
        raise IntegrityError(f"{log}: line {head.events} is not the one that {what} has seen")


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
    return tuple(event for event, _ in _read_lines(log))


def verify_log(log: Path, seen: Mapping[str, LogHead]) -> tuple[Event, ...]:
    """Every event of a log that is whole: each line bound to the one before, and no end cut off.

    ``seen`` are the heads that others saw of the log, by what saw them: receipts. Raises
    ``IntegrityError`` that says what is wrong with it.
    """
    lines = _read_lines(log)
    digests = [digest for _, digest in lines]
    path = _head_path(log)
    heads = dict(seen)
    if path.exists():
        heads[path.name] = _parse_head(read_capped(path, _MAX_HEAD_SIZE), str(path))
    elif lines:
        raise IntegrityError(f"{path}: missing, and so nobody knows whether the log was cut")
    for what, head in heads.items():
        _check_holds(log, digests, head, what)
    return tuple(event for event, _ in lines)


def _parse_head(data: bytes, what: str) -> LogHead:
    fields = Fields.of(canonical.decode(data, what=what, max_size=_MAX_HEAD_SIZE), what)
    fields.only("events", "digest")
    return LogHead(fields.integer("events"), fields.digest("digest"))


def _read_lines(log: Path) -> list[tuple[Event, Digest]]:
    """Every event with the digest of its line."""
    if not log.exists():
        return []
    lines = []
    previous = _NOTHING
    with naming_refusals(log), log.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_SIZE + 1):
            number += 1
            event = _parse_line(line, previous, f"{log}: line {number}")
            previous = Digest.of(line)
            lines.append((event, previous))
    return lines


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
