"""llama.cpp's OpenAI-compatible server, as a service that starts, is ready, and stops."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from packager.errors import HostError
from packager.runtime.engine import LOOPBACK, Engine, EngineOptions

DEFAULT_PORT = 8080
_SLOTS = 4
_WAIT_SECONDS = 3600.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Service:
    """A running server. ``url`` is where it answers."""

    def __init__(self, engine: Engine) -> None:
        """Wrap an engine whose routes are open to others."""
        self._engine = engine
        self.url = engine.url

    @property
    def example(self) -> str:
        """A command that asks it something."""
        route, body = self._first_question()
        header = "Content-Type: application/json"
        return f"curl {self.url}{route} -H '{header}' -d '{json.dumps(body)}'"

    def _first_question(self) -> tuple[str, dict[str, object]]:
        if self._engine.makes_vectors:
            return "/v1/embeddings", {"input": "Hello"}
        if self._engine.file.has_chat_template:
            messages = [{"role": "user", "content": "Hello"}]
            return "/v1/chat/completions", {"messages": messages, "max_tokens": 64}
        return "/v1/completions", {"prompt": "Hello", "max_tokens": 32}

    def wait(self) -> None:
        """Serve until SIGINT or SIGTERM ends the block that :func:`serve` opened.

        Raises ``EngineError`` if the server stops by itself.
        """
        while True:
            self._engine.wait(_WAIT_SECONDS)


@contextmanager
def serve(
    model: Path,
    *,
    host: str = LOOPBACK,
    port: int = DEFAULT_PORT,
    name: str | None = None,
    context: int | None = None,
    adapter: Path | None = None,
    libraries: Path | None = None,
) -> Iterator[Service]:
    """Serve ``model`` as ``name`` on ``host`` and ``port`` (0: any free one); ready when entered.

    SIGINT and SIGTERM leave the block, without an error; so enter it in the main thread.
    ``context`` and ``adapter`` are as :class:`EngineOptions` has them. Raises ``HostError`` if
    the address cannot be used, ``EngineError``, and what opening an :class:`Engine` raises.
    """
    _check_address(host, port)
    options = EngineOptions(
        context=context,
        isolate=False,
        private=False,
        host=host,
        port=port,
        slots=_SLOTS,
        name=name,
        adapter=adapter,
        libraries=libraries,
    )
    with suppress(_StopRequested), Engine(model, options) as engine, _stopping_on_signals():
        yield Service(engine)


def _check_address(host: str, port: int) -> None:
    """Refuse an address that is taken, or not this host's, before a model is loaded for it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise HostError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}",
            hint="airpack serve NAME --port ANOTHER",
        ) from error


class _StopRequested(BaseException):
    """A signal asked to stop. Not an ``Exception``: nothing on the way may take it for one."""


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _StopRequested

    before = [(number, signal.signal(number, stop)) for number in _STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
