"""llama.cpp's OpenAI-compatible server, as a service that starts, is ready, and stops."""

from __future__ import annotations

import json
import os
import shlex
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

from packager.errors import EngineError
from packager.runtime.door import Door
from packager.runtime.engine import LOOPBACK, Engine, EngineOptions
from packager.runtime.sandbox import Egress
from packager.store.atomic import naming_refusals

DEFAULT_PORT = 8080
SLOTS = 4
_WAIT_SECONDS = 3600.0
_ASK = (
    "import sys, urllib.request as u; "
    'ask = u.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"}); '
    "print(u.build_opener(u.ProxyHandler({})).open(ask).read().decode())"
)
_LONGEST_PLACE = 80  # bytes; unix(7) has 108 for the whole path of a socket
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Service:
    """A running server. ``url`` is where it answers."""

    def __init__(self, model: Path, options: EngineOptions, door: Door) -> None:
        """Open ``model``, then ``door``; raises what opening an :class:`Engine` does.

        The engine's host is the Unix socket that the door leads to.
        """
        self._model = model
        self._options = options
        self._engine = Engine(model, options)
        self.url = door.url
        door.open(Path(options.host))

    @property
    def egress(self) -> Egress:
        """What is known of the engine's own use of the network, up to now."""
        return self._engine.egress

    def close(self) -> None:
        """Answer no more."""
        self._engine.close()

    @property
    def example(self) -> str:
        """A command that asks it something."""
        route, body = self._first_question()
        header = "Content-Type: application/json"
        return f"curl {self.url}{route} -H '{header}' -d '{json.dumps(body)}'"

    @property
    def example_without_curl(self) -> str:
        """A command that asks the same on a host that has Python alone."""
        route, body = self._first_question()
        return shlex.join(["python3", "-c", _ASK, f"{self.url}{route}", json.dumps(body)])

    def _first_question(self) -> tuple[str, dict[str, object]]:
        if self._engine.makes_vectors:
            return "/v1/embeddings", {"input": "Hello"}
        if self._engine.file.has_chat_template:
            messages = [{"role": "user", "content": "Hello"}]
            return "/v1/chat/completions", {"messages": messages, "max_tokens": 64}
        return "/v1/completions", {"prompt": "Hello", "max_tokens": 32}

    def wait(self, died: Callable[[EngineError], None]) -> None:
        """Serve until a signal ends the block that :func:`serve` opened.

        A request may be more than the engine survives, as a grammar nested too deeply is for
        llama.cpp. Then ``died`` is told, and another engine takes its place. Raises
        ``EngineError`` if that cannot be opened.
        """
        while True:
            try:
                self._engine.wait(_WAIT_SECONDS)
            except EngineError as error:
                died(error)
                self._engine.close()
                Path(self._options.host).unlink(missing_ok=True)  # bind(2) takes no place twice
                self._engine = Engine(self._model, self._options)


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

    SIGINT, SIGTERM and SIGHUP, unless ``nohup`` is in force, leave the block without an error, and
    before it is entered are a ``KeyboardInterrupt``; so enter it in the main thread.
    ``context`` and ``adapter`` are as :class:`EngineOptions` has them. Raises ``HostError`` if
    the address cannot be used, ``EngineError``, and what opening an :class:`Engine` raises.
    """
    with (
        _stopping_on_signals(),
        closing(Door(host, port, hint="airpack serve NAME --port ANOTHER")) as door,
        _socket_place() as place,
    ):
        options = EngineOptions(
            context=context,
            private=False,
            host=str(place),
            slots=SLOTS,
            name=name,
            adapter=adapter,
            libraries=libraries,
        )
        service = Service(model, options, door)
        with suppress(_StopRequested), closing(service):
            yield service


@contextmanager
def _socket_place() -> Iterator[Path]:
    """Where the engine's socket may be: in a directory that is this account's alone."""
    above = tempfile.gettempdir()
    if len(os.fsencode(above)) > _LONGEST_PLACE:
        above = "/tmp"  # noqa: S108  # the directory in it is made with a name that nobody knows
    with naming_refusals(Path(above)):
        directory = tempfile.TemporaryDirectory(prefix="airpack-", dir=above)
    with directory:
        yield Path(directory.name) / "engine.sock"


class _StopRequested(KeyboardInterrupt):
    """A signal asked to stop. Not an ``Exception``: nothing on the way may take it for one."""


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _StopRequested

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # as nohup(1) has it
    heeded = [n for n in _STOP_SIGNALS if n != signal.SIGHUP or not ignored]
    before = [(number, signal.signal(number, stop)) for number in heeded]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
