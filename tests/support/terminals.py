"""A person at a terminal, with a command in it."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

PATIENCE = 60.0  # seconds; far more than it takes, but a busy host is no fault


@dataclass
class Terminal:
    """A person's terminal with a command in it: what it shows, and keys to press."""

    pid: int
    screen: int
    seen: str = ""
    left: str = field(default="", repr=False)

    def wait_for(self, text: str) -> None:
        """Read until ``text`` shows up behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.left:
            ready, _, _ = select.select([self.screen], [], [], deadline - time.monotonic())
            assert ready, f"no {text!r} in {self.seen!r}"
            self._read()
        self.left = self.left.partition(text)[2]

    def press(self, keys: str) -> None:
        time.sleep(0.2)  # a person is slower than the terminal's change of mode
        os.write(self.screen, keys.encode())

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        try:
            while self._read():
                pass
        except OSError:  # Linux says EIO where the other side has closed
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        data = os.read(self.screen, 4096).decode("utf-8", "replace")
        self.seen += data
        self.left += data
        return bool(data)


@contextmanager
def terminal(
    command: Sequence[str], environment: Mapping[str, str], *, kind: str = "dumb"
) -> Iterator[Terminal]:
    """``command`` in a terminal that TERM calls ``kind``."""
    pid, screen = pty.fork()
    if pid == 0:
        os.execve(command[0], [*command], {**environment, "TERM": kind})
    try:
        yield Terminal(pid, screen)
    finally:
        os.close(screen)
