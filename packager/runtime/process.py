"""The engine's process, seen from outside: JSON lines to it, JSON lines from it, its last words.

A request is one line; what comes back is any number of ``{"event": ...}`` and then one
``{"result": ...}`` or ``{"error": ...}``. The engine is C++ fed with files from elsewhere: it
may stop at any moment, and that must end as one sentence here.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

from packager.errors import EngineError
from packager.runtime.environment import worker_command, worker_environment

_MAX_LINE_SIZE = 16 << 20
_READ_SIZE = 1 << 16
_MAX_LOG_SIZE = 1 << 16
_MAX_WORDS = 300
# llama.cpp: minutes.seconds.milliseconds.microseconds, then the level, E for error.
_ERROR_LINE = re.compile(r"\d+\.\d+\.\d+\.\d+ E (.*)")

Message = dict[str, object]


class WorkerProcess:
    """One running worker. It dies with the thread that started it, however that ends."""

    def __init__(self, module: str, *, libraries: Path | None) -> None:
        """Start ``module``'s main. ``libraries`` as in :func:`worker_environment`.

        Raises ``EngineError``.
        """
        environment = worker_environment(os.environ, prefix=Path(sys.prefix), libraries=libraries)
        try:
            self._process = subprocess.Popen(
                worker_command(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",  # holds no medium busy
            )
        except OSError as error:
            raise EngineError(f"the engine's process could not be started: {error}") from error
        self._input, self._output, log = _pipes(self._process)
        self._log = _Log(log)
        self._received = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Mapping[str, object]) -> None:
        """Send one line. A worker that is gone is noticed by :meth:`receive`."""
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(message).encode("ascii") + b"\n")
            self._input.flush()

    def receive(self, timeout: float) -> Message:
        """The next message; raises ``EngineError`` if none comes within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _MAX_LINE_SIZE:
                raise EngineError("the engine's process sent an answer without end")
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise EngineError(
                    f"the engine has been silent for {timeout:.0f} seconds{self._log.last_words()}"
                )
            data = os.read(self._output.fileno(), _READ_SIZE)
            if not data:
                raise self._stopped()
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        message: object = json.loads(line)
        if not isinstance(message, dict):
            raise EngineError("the engine's process sent something that is not an answer")
        return message

    def wait(self, timeout: float) -> bool:
        """Whether it says anything more, its end included, within ``timeout`` seconds."""
        return bool(self._selector.select(timeout))

    def close(self) -> None:
        """End it. It holds nothing that would be lost."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        self._log.close()
        self._output.close()
        with suppress(BrokenPipeError):  # what was buffered for it has no reader
            self._input.close()

    def last_words(self) -> str:
        """The end of the engine's log, to be put behind a sentence."""
        return self._log.last_words()

    def forget_words(self) -> None:
        """Begin a request: what the engine said of those before explains nothing."""
        self._log.forget()

    def _stopped(self) -> EngineError:
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._log.finish()
        return EngineError(f"the engine stopped {how}{self._log.last_words()}")


class _Log:
    """The end of what a process writes to its standard error, kept by a thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._tail = b""
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while data := os.read(self._stream.fileno(), _READ_SIZE):
            self._tail = (self._tail + data)[-_MAX_LOG_SIZE:]

    def forget(self) -> None:
        self._tail = b""

    def finish(self) -> None:
        """Wait for the last of it."""
        self._thread.join(timeout=5)

    def close(self) -> None:
        self.finish()
        self._stream.close()

    def last_words(self) -> str:
        words = last_words(self._tail.decode("utf-8", "replace"))
        return f": {words}" if words else ""


def last_words(log: str) -> str:
    """What to quote of an engine's log: the first error, and the last line that is not one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [m[1].strip() for line in lines if (m := _ERROR_LINE.fullmatch(line))]
    # The first error is the cause and those behind it only pass it on; a plain last line is
    # how the process ended.
    plain = [line for line in lines if not _ERROR_LINE.fullmatch(line)]
    return "; ".join(_printable(line)[:_MAX_WORDS] for line in (*errors[:1], *plain[-1:]))


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise EngineError("the engine's process has no pipes")
    return process.stdin, process.stdout, process.stderr
