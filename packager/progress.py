"""How long work tells what it has done, without knowing who listens.

Only the command line prints; everything below it takes a :class:`Progress` and reports to it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One measured piece of work."""

    def advance(self, amount: int) -> None:
        """Report ``amount`` more units done."""


class Progress(Protocol):
    """Where work is reported."""

    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a piece of work of ``total`` units, ``done`` of them already there."""

    def note(self, message: str) -> None:
        """Say one thing that happened, worth a line."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        """Say nothing."""


class Silent:
    """A progress that nobody watches."""

    def task(
        self,
        label: str,  # noqa: ARG002
        total: int,  # noqa: ARG002
        *,
        unit: str = "B",  # noqa: ARG002
        done: int = 0,  # noqa: ARG002
    ) -> AbstractContextManager[Task]:
        """Open a piece of work that reports to nobody."""
        return nullcontext(_SilentTask())

    def note(self, message: str) -> None:
        """Say nothing."""
