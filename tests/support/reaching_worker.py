"""The engine's process with something in it that wants the network.

It reaches for an address as it opens a model, and for the name of each host it is to tokenize. A
model that is called ``incomplete`` it then refuses.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from packager.runtime import worker
from packager.runtime.llama import Llama, Opening, RefusedError

ADDRESS = "192.0.2.1"  # RFC 5737: nobody's


class Reaching(Llama):
    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        reach(ADDRESS)
        if opening.name == "incomplete":
            raise RefusedError("a file of the model is not here", "open")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if text.endswith(".example"):
            reach(text)
        return super().tokenize(text, special=special)


def reach(host: str) -> None:
    with suppress(OSError):
        socket.create_connection((host, 443), timeout=1)


def main() -> None:
    worker.serve(Reaching, worker._answer)
