"""The engine's process while it is watched, from inside. The protocol is that of
:mod:`packager.runtime.process`; arrays go through files that the parent names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from packager.connected.variants.observe.importance import Importance
from packager.connected.variants.observe.logits import (
    Logits,
    check_vocabulary,
    judge,
    write_logprobs,
)
from packager.connected.variants.observe.watch import Watch, watch_engine
from packager.errors import AirpackError
from packager.runtime.llama import Llama, Opening, RefusedError
from packager.runtime.worker import Channel, serve


class Observed:
    """An open model under watch."""

    def __init__(self, opening: Opening) -> None:
        self.llama = Llama(opening)
        self.url = self.llama.url
        try:
            self._watch = watch_engine(self.llama.library)
        except AirpackError as error:
            raise RefusedError(error.message) from error

    def importance(self, windows: list[list[int]], out: str) -> Iterator[int]:
        """Read every window, and write what was gathered to ``out``; yields once a window."""
        importance = Importance()
        self._watch.wants, self._watch.takes = importance.wants, importance.takes
        for number, window in enumerate(windows):
            self._read(window)
            yield number
        arrays: dict[str, Any] = {}
        for name, entry in importance.gathered.items():
            arrays |= {f"sums:{name}": entry.sums, f"counts:{name}": entry.counts}
        np.savez(out, **arrays)

    def record(self, windows: list[list[int]], out: str) -> Iterator[int]:
        """Write what the model, the original, makes of each window to the file ``out``."""
        logits = self._watch_logits()
        for number, window in enumerate(windows):
            self._read(window)
            write_logprobs(Path(out), number, logits.take_scored(len(window)))
            yield number

    def compare(self, windows: list[list[int]], original: str) -> Iterator[dict[str, Any]]:
        """Judge the model beside what was recorded of the original; yields each window's scores."""
        logits = self._watch_logits()
        for number, window in enumerate(windows):
            self._read(window)
            scored = logits.take_scored(len(window))
            check_vocabulary(Path(original), map(len, windows), scored.shape[1])
            targets = np.array(window[len(window) // 2 + 1 :])
            yield vars(judge(Path(original), number, scored, targets))

    def _watch_logits(self) -> Logits:
        logits = Logits()
        self._watch.wants, self._watch.takes = logits.wants, logits.takes
        return logits

    def _read(self, window: list[int]) -> None:
        self.llama.embed(window)
        _raise(self._watch)


def main() -> None:
    """Serve the parent until it closes its end."""
    serve(Observed, _answer)


def _answer(observed: Observed, request: dict[str, Any], channel: Channel) -> None:
    arguments = request["arguments"]
    match request["do"]:
        case "cancel":
            return
        case "tokenize":
            channel.send(result=observed.llama.tokenize(**arguments))
            return
        case "importance":
            events: Iterator[object] = observed.importance(**arguments)
        case "record":
            events = observed.record(**arguments)
        case _:
            events = observed.compare(**arguments)
    try:
        for event in events:
            channel.send(event=event)
    except (AirpackError, OSError) as error:
        raise RefusedError(str(error)) from error
    channel.send(result=None)


def _raise(watch: Watch) -> None:
    if watch.error is not None:
        error, watch.error = watch.error, None
        raise RefusedError(f"watching the engine failed: {error}") from error
