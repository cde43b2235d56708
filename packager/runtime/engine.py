"""An open model, and what can be asked of it. The engine itself runs in another process."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

from packager.errors import AirpackError, EngineError, NetworkUseError, RefusedRequestError
from packager.format.digest import Digest
from packager.format.golden import ALTERNATIVES, Alternatives
from packager.runtime.model_file import ModelFile, check_adapter_file, read_model_file
from packager.runtime.process import Message, WorkerProcess
from packager.runtime.sandbox import Egress

LOOPBACK = "127.0.0.1"
CUT_SHORT = "length"  # why an answer ended that had no more room, as OpenAI's API says it

_CONTEXT = 4096
# A text is read whole or not at all, and most models for search know no longer one.
_CONTEXT_FOR_VECTORS = 8192
# Below this many bytes of weights, threads wait for each other longer than they work. The
# number of threads changes no result, only the time.
_SMALL_MODEL_SIZE = 64 << 20
_SILENCE_SECONDS = 600.0
_SECONDS_PER_TOKEN = 10.0
_SLOWEST_DISK = 10 << 20  # bytes a second


@dataclass(frozen=True)
class EngineOptions:
    """How to run the engine.

    ``context`` is in tokens, bounded by the model's own, ``None`` for what suits its kind;
    ``slots`` requests at once share it.
    ``measuring`` gives up speed for answers that are the same each time. ``isolate`` asks for
    a network namespace. ``host``, ``port`` and ``private`` are where its HTTP routes listen and
    whether others may use them; ``name`` is what they call the model. ``pooling`` ("mean") asks
    for vectors of a model that generates, too. ``adapter`` is a LoRA adapter to apply.
    ``libraries`` is a directory with the carried ``libgomp.so.1``.
    """

    context: int | None = None
    threads: int | None = None
    measuring: bool = False
    isolate: bool = True
    private: bool = True
    host: str = LOOPBACK
    port: int = 0
    slots: int = 1
    name: str | None = None
    pooling: str | None = None
    adapter: Path | None = None
    libraries: Path | None = None


@dataclass(frozen=True)
class Identity:
    """Which engine answered: ``digest`` is that of its shared object."""

    engine: str
    version: str
    digest: Digest


@dataclass(frozen=True)
class Generation:
    """A greedy continuation. ``seconds`` is the time after the first token."""

    tokens: tuple[int, ...]
    text: str
    seconds: float


@dataclass(frozen=True)
class Sampling:
    """How to choose among tokens: greedily at temperature 0; ``None`` leaves it to the model."""

    temperature: float | None = 0.0
    seed: int | None = None


GREEDY = Sampling()
AS_THE_MODEL_ASKS = Sampling(temperature=None)

# An answer as it comes; the generator's value is why it ended: "stop", or CUT_SHORT.
Pieces = Generator[str, None, str]


@dataclass(frozen=True)
class ChatMessage:
    """One turn: ``role`` is system, user or assistant."""

    role: str
    content: str


class Engine(AbstractContextManager["Engine"]):
    """A model opened in a process of its own, cut off from the network where that is allowed.

    A context manager; one request at a time, from the thread that opened it. Every request
    raises ``EngineError``, with the engine's last words, if the engine refuses, stops, or is
    silent for ten minutes; ``NetworkUseError`` if it refuses after it reached for the network.
    """

    worker = "packager.runtime.worker"

    def __init__(self, model: Path, options: EngineOptions | None = None) -> None:
        """Open ``model``.

        Raises ``EngineError``, and what :func:`read_model_file` and :func:`check_adapter_file`
        raise.
        """
        self._options = options or EngineOptions()
        self.file = read_model_file(model)
        if self._options.adapter is not None:
            check_adapter_file(self._options.adapter, self.file)
        self.threads = self._options.threads or default_threads(self.file)
        self.context = min(self._options.context or default_context(self.file), self.file.context)
        self._process = WorkerProcess(self.worker, libraries=self._options.libraries)
        self._answering = False
        try:
            opened = self._open()
        except BaseException:
            self._process.close()
            raise
        self.url = str(opened["url"])
        self._opened = opened

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine; it may have ended already."""
        self._process.close()

    @property
    def pid(self) -> int:
        """The process id of the engine."""
        return self._process.pid

    @property
    def egress(self) -> Egress:
        """What is known of its use of the network, up to now."""
        return Egress(
            namespace=bool(self._opened["namespace"]),
            attempts=tuple(cast("list[str]", self._ask("attempts"))),
            watched=bool(self._opened["watched"]),
        )

    @property
    def makes_vectors(self) -> bool:
        """Whether it is open for :meth:`embed`, and not for answers."""
        return self.file.makes_vectors or self._options.pooling is not None

    def identity(self) -> Identity:
        """Which engine this is."""
        found = cast("dict[str, str]", self._ask("identity"))
        return Identity(found["engine"], found["version"], Digest(found["digest"]))

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The token ids of ``text``, with what the model wants at the beginning."""
        return tuple(cast("list[int]", self._ask("tokenize", text=text, special=True)))

    def embed(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """The vector of ``tokens``, of length 1; at most ``context`` of them."""
        if len(tokens) > self.context:
            raise EngineError(
                f"a text of {len(tokens)} tokens; the model reads {self.context} at once",
                hint="cut the text into parts, and make a vector of each",
            )
        patience = len(tokens) * _SECONDS_PER_TOKEN
        found = self._ask("embed", patience=patience, tokens=list(tokens))
        return tuple(cast("list[float]", found))

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """Continue the tokens ``prompt`` greedily, to the model's end or ``max_tokens``."""
        patience = max_tokens * _SECONDS_PER_TOKEN
        found = cast(
            "dict[str, object]",
            self._ask("generate", patience=patience, prompt=list(prompt), max_tokens=max_tokens),
        )
        return Generation(
            tokens=tuple(cast("list[int]", found["tokens"])),
            text=str(found["text"]),
            seconds=cast("float", found["milliseconds"]) / 1000,
        )

    def follow(
        self, prompt: Sequence[int], continuation: Sequence[int], count: int = ALTERNATIVES
    ) -> Iterator[Alternatives]:
        """The ``count`` likeliest tokens at each place of ``continuation``, given those before.

        The engine reads ``prompt`` at once and then token by token, as when it generates, so
        that the arithmetic is the same.
        """
        arguments = {"prompt": list(prompt), "continuation": list(continuation), "count": count}
        for event in self._events("follow", arguments):
            yield tuple((token, logprob) for token, logprob in cast("list[list[int]]", event))

    def losses(self, tokens: Sequence[int]) -> Iterator[int | None]:
        """The logprob in micronats of each of ``tokens`` but the first, given those before.

        ``None`` where the engine does not say, which depends on the tokens alone.
        """
        for event in self._events("losses", {"tokens": list(tokens)}):
            yield cast("int | None", event)

    def complete(self, prompt: str, *, max_tokens: int, sampling: Sampling = GREEDY) -> Pieces:
        """Continue ``prompt``, piece by piece. Leaving the iterator stops the engine."""
        return self._stream({"prompt": prompt}, max_tokens, sampling)

    def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
    ) -> Pieces:
        """Answer ``messages`` by the model's chat template, piece by piece."""
        body: dict[str, object] = {"messages": [asdict(message) for message in messages]}
        return self._stream(body, max_tokens, sampling)

    def wait(self, seconds: float) -> None:
        """Let time pass; raises ``EngineError`` if the engine stops meanwhile."""
        if self._process.wait(seconds):
            self._process.receive(0)

    def _open(self) -> Message:
        adapter = self._options.adapter
        opening = {
            "model": str(self.file.path),
            "name": self._options.name or self.file.path.stem,
            "context": self.context,
            "threads": self.threads,
            "measuring": self._options.measuring,
            "private": self._options.private,
            "host": self._options.host,
            "port": self._options.port,
            "slots": self._options.slots,
            "embedding": self.makes_vectors,
            "pooling": self._options.pooling,
            "adapter": None if adapter is None else str(adapter.absolute()),
        }
        start = {"opening": opening, "isolate": self._options.isolate, "parent": os.getpid()}
        self._process.send(start)
        return cast("Message", self._result(_SILENCE_SECONDS + self.file.size / _SLOWEST_DISK))

    def _stream(self, body: dict[str, object], max_tokens: int, sampling: Sampling) -> Pieces:
        chosen = {"temperature": sampling.temperature, "seed": sampling.seed}
        given = {key: value for key, value in chosen.items() if value is not None}
        events = self._events("stream", body | {"max_tokens": max_tokens} | given)
        return (yield from cast("Pieces", events))

    def _ask(self, what: str, *, patience: float = 0.0, **arguments: object) -> object:
        """The answer to ``what``; ``patience`` is how many seconds more than usual it may take."""
        self._begin(what, arguments)
        return self._result(_SILENCE_SECONDS + patience)

    def _events(self, what: str, arguments: dict[str, object]) -> Generator[object, None, object]:
        self._begin(what, arguments)
        while "event" in (message := self._receive(_SILENCE_SECONDS)):
            yield message["event"]
        return message["result"]

    def _begin(self, what: str, arguments: dict[str, object]) -> None:
        self._interrupt()
        self._process.forget_words()
        self._process.send({"do": what, "arguments": arguments})
        self._answering = True

    def _interrupt(self) -> None:
        """Stop the answer that nobody waited for, so that the next one is not taken for it."""
        if self._answering:
            self._process.send({"do": "cancel"})
        while self._answering:
            self._answering = "event" in self._process.receive(_SILENCE_SECONDS)

    def _result(self, timeout: float) -> object:
        self._answering = True
        return self._receive(timeout)["result"]

    def _receive(self, timeout: float) -> Message:
        message = self._process.receive(timeout)
        self._answering = "event" in message
        if "error" in message:
            raise _error(message, self._process.last_words())
        return message


def default_context(file: ModelFile) -> int:
    """Tokens to make room for where nobody said how many."""
    return _CONTEXT_FOR_VECTORS if file.makes_vectors else _CONTEXT


def default_threads(file: ModelFile) -> int:
    """One for a small model; else as many as this process may use."""
    return 1 if file.size < _SMALL_MODEL_SIZE else len(os.sched_getaffinity(0))


def network_use(attempts: Sequence[str]) -> NetworkUseError:
    """What to raise where the engine was seen to reach for the network."""
    return NetworkUseError(
        f"the engine reached for the network, and was refused: {', '.join(attempts)}",
        hint="find out what of the model or the engine asks for it; nothing here may need it",
    )


LOOPBACK_DOWN = "ip link set lo up; the loopback interface of this host is down"
_HINTS = {
    "loopback": LOOPBACK_DOWN,
    "import": "pip install 'airpack[run]', or on an isolated host: sh setup.sh",
    "exceed_context_size_error": "shorten it; in a conversation, /new begins another",
}


def _error(message: Message, last_words: str) -> AirpackError:
    if attempts := cast("list[str]", message.get("attempts")):
        return network_use(attempts)
    kind = str(message.get("kind"))
    words = last_words if kind == "open" else ""
    # The engine's own advice is a flag of another program.
    what = str(message["error"]).removesuffix(", try increasing it")
    return RefusedRequestError(f"{what}{words}", hint=_HINTS.get(kind))
