"""Threads that work side by side, and take one step of their work in order."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Turns:
    """Gives the turn to one thread at a time, by the numbers 0, 1, 2 that they hold."""

    def __init__(self) -> None:
        self._next = 0
        self._called_off = False
        self._changed = threading.Condition()

    def take(self, number: int, step: Callable[[], None]) -> None:
        """Call ``step`` when all lower numbers have had their turn; not if that was called off.

        Where ``step`` raises, whoever holds a higher number waits until it is called off.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._called_off or self._next == number)
            if self._called_off:
                return
        step()
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def call_off(self) -> None:
        """Let nobody wait any more, and nobody have a turn."""
        with self._changed:
            self._called_off = True
            self._changed.notify_all()
