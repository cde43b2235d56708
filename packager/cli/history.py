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
_MAX_SIZE = 4 << 20  # bytes of the file; 500 of the longest questions
_MAX_QUESTION = 4096  # bytes; what is longer was pasted, and is to be had where it came from


def default_history() -> Path:
    """``airpack/history`` below ``$XDG_STATE_HOME``."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "airpack" / "history"


class History:
    """The questions asked, oldest first. What cannot be kept in ``file`` is kept for now only."""

    def __init__(self, file: Path | None) -> None:
        """Read ``file``; ``None`` keeps the questions for this conversation only."""
        self._file = file
        self._questions = _read(file) if file else []
        if readline is not None:
            readline.set_auto_history(False)  # a question is more than a line
            readline.parse_and_bind("set enable-bracketed-paste on")  # what is pasted is one
            readline.clear_history()
            for question in self._questions:
                readline.add_history(question)

    def add(self, question: str) -> None:
        """Remember ``question``; where it begins with a space, for this conversation only."""
        if readline is not None:
            readline.add_history(question)
        line = _line(question)
        if self._file and not question.startswith(" ") and len(line) <= _MAX_QUESTION:
            self._questions = [*self._questions, question][-_KEPT:]
            with suppress(OSError, AirpackError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_file(self._file, b"".join(map(_line, self._questions)), mode=0o600)


def _line(question: str) -> bytes:
    return json.dumps(question).encode("ascii") + b"\n"


def _read(file: Path) -> list[str]:
    """The questions in ``file``; lines that are none are left out."""
    questions: list[str] = []
    with suppress(OSError, AirpackError):
        for line in read_capped(file, _MAX_SIZE).splitlines()[-_KEPT:]:
            with suppress(ValueError):
                question = json.loads(line)
                if isinstance(question, str):
                    questions.append(question)
    return questions
