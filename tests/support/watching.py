"""A progress that remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class WatchedTask:
    """One task: what it said it would do, and what it has done."""

    label: str
    total: int
    done: int

    def advance(self, amount: int) -> None:
        self.done += amount


@dataclass
class Watching:
    """Keeps every note and every task."""

    notes: list[str] = field(default_factory=list)
    tasks: list[WatchedTask] = field(default_factory=list)

    @contextmanager
    def task(
        self,
        label: str,
        total: int,
        *,
        unit: str = "B",  # noqa: ARG002
        done: int = 0,
    ) -> Iterator[WatchedTask]:
        task = WatchedTask(label, total, done)
        self.tasks.append(task)
        yield task

    def note(self, message: str) -> None:
        self.notes.append(message)
