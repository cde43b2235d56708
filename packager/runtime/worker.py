"""The engine's process, from inside: cut off, load, then answer one request after the other.

Its standard input and output are the two ends of the protocol in :mod:`packager.runtime.process`;
what the engine itself writes goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from packager.runtime.egress import watch_egress
from packager.runtime.llama import Llama, Opening, RefusedError
from packager.runtime.sandbox import enter_namespace, is_cut_off


class Served(Protocol):
    """An open model: ``url`` is where its HTTP routes are."""

    url: str


T = TypeVar("T", bound=Served)

_PR_SET_PDEATHSIG = 1
_READ_SIZE = 1 << 16


class Channel:
    """The two ends, taken away from the standard streams so that nothing else writes there."""

    def __init__(self) -> None:
        self._requests = os.dup(0)
        self._answers = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._received = b""

    def receive(self) -> dict[str, Any]:
        """The next request. A parent that is gone ends this process."""
        while b"\n" not in self._received:
            data = os.read(self._requests, _READ_SIZE)
            if not data:
                os._exit(0)
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request

    def is_interrupted(self) -> bool:
        """Whether something was said while a request is being answered: to stop."""
        return bool(self._received or select.select([self._requests], [], [], 0)[0])

    def send(self, **message: object) -> None:
        """Send one message."""
        line = memoryview(json.dumps(message).encode("ascii") + b"\n")
        try:
            while line:
                line = line[os.write(self._answers, line) :]
        except BrokenPipeError:
            os._exit(0)


def main() -> None:
    """Serve the parent until it closes its end."""
    serve(Llama, _answer)


def serve(
    open_model: Callable[[Opening], T], answer: Callable[[T, dict[str, Any], Channel], None]
) -> None:
    """Open the model that the parent names, cut off, and ``answer`` its requests one by one.

    Both may raise ``RefusedError``.
    """
    # Ctrl-C is for the parent, which shares the terminal with this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel()
    start = channel.receive()
    isolate = bool(start["isolate"])
    cut_off = isolate and enter_namespace() and is_cut_off()
    _die_with(int(start["parent"]))
    watch = watch_egress() if isolate else None
    attempts = watch.attempts if watch else tuple
    try:
        model = open_model(Opening(**start["opening"]))
    except RefusedError as error:
        channel.send(error=str(error), kind=error.kind, attempts=attempts())
        os._exit(1)
    channel.send(result={"url": model.url, "namespace": cut_off, "watched": watch is not None})
    while True:
        request = channel.receive()
        try:
            if request["do"] == "attempts":
                channel.send(result=attempts())
            else:
                answer(model, request, channel)
        except RefusedError as error:
            channel.send(error=str(error), kind=error.kind, attempts=attempts())


def _die_with(parent: int) -> None:
    """End when the parent does, however it ends. prctl(2); asked for after the change of user
    namespace, which clears it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # gone before it was asked for
        os._exit(0)


def _answer(llama: Llama, request: dict[str, Any], channel: Channel) -> None:
    arguments = request.get("arguments", {})
    result: object = None
    match request["do"]:
        case "cancel":  # the request that it was meant for had ended already
            return
        case "follow":
            for alternatives in llama.follow(**arguments):
                channel.send(event=alternatives)
        case "losses":
            for logprob in llama.losses(**arguments):
                channel.send(event=logprob)
        case "stream":
            result = llama.stream(arguments, lambda piece: _pass_on(piece, channel))
        case what:
            at_once: dict[str, Callable[..., object]] = {
                "identity": llama.identity,
                "tokenize": llama.tokenize,
                "embed": llama.embed,
                "generate": llama.generate,
            }
            result = at_once[what](**arguments)
    channel.send(result=result)


def _pass_on(piece: str, channel: Channel) -> bool:
    channel.send(event=piece)
    return channel.is_interrupted()
