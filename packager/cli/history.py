"""The questions that a person asked before, for the up key: in this conversation, and the next.

The file is its owner's alone, and holds questions, no answers: one a line, as JSON, since a
question may have several lines.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from packager.errors import AirpackError
from packager.store.atomic import read_capped, write_file

try:
    import readline  # it gives input() the up key and its editing keys
except ImportError:  # a Python without it: lines are typed as the terminal has them
    readline = None  # type: ignore[assignment]

_KEPT = 500
_MAX_QUESTION = 4096  # bytes; what is longer was pasted, and is to be had where it came from
_MAX_SIZE = 4 * _KEPT * _MAX_QUESTION


def default_history() -> Path | None:
    """``airpack/history`` below ``$XDG_STATE_HOME``; ``None`` for an account without a home."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    except RuntimeError:
        return None
    return Path(state) / "airpack" / "history"


class History:
    """What the up key brings back. Where ``file`` cannot be written, it ends with this process."""

    def __init__(self, file: Path | None) -> None:
        """Begin with what is in ``file``; ``None`` neither reads nor keeps anything."""
        self._file = file
        if readline is not None:
            readline.set_auto_history(False)  # a question is more than a line
            if os.environ.get("TERM", "dumb") != "dumb":
                readline.parse_and_bind("set enable-bracketed-paste on")  # what is pasted is one
            for question in _read(file) if file else ():
                _offer(question)

    def add(self, question: str) -> None:
        """Remember ``question``; where it begins with a space, for this conversation only."""
        _offer(question)
        if self._file and not question.startswith(" "):
            with suppress(OSError):
                _append(self._file, question)


def _offer(question: str) -> None:
    """Have the up key bring ``question`` back, if this terminal's encoding has its characters."""
    if readline is not None:
        with suppress(UnicodeEncodeError):
            readline.add_history(question)


def _append(file: Path, question: str) -> None:
    line = json.dumps(question).encode("ascii") + b"\n"
    if len(line) > _MAX_QUESTION:
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600)
    try:
        os.write(descriptor, line)  # at once, so that two conversations may share the file
    finally:
        os.close(descriptor)


def _read(file: Path) -> list[str]:
    """The last questions in ``file``, which is cut down to them where it has grown to twice."""
    with suppress(AirpackError):
        lines = read_capped(file, _MAX_SIZE).splitlines(keepends=True)
        if len(lines) > 2 * _KEPT:
            write_file(file, b"".join(lines[-_KEPT:]), mode=0o600)
        return [question for line in lines[-_KEPT:] if (question := _question(line))]
    return []


def _question(line: bytes) -> str:
    """The question in ``line``; empty where that is no line of ours."""
    with suppress(ValueError):
        question = json.loads(line)
        if isinstance(question, str):
            return question
    return ""
