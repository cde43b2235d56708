"""What a process reads and writes of which file, byte for byte, as strace saw it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.hosts import strace

_MOVES = "read,readv,pread64,preadv,preadv2,write,writev,pwrite64,pwritev,pwritev2"
_OTHERS = "mmap,sendfile,splice,copy_file_range,fallocate"  # nobody here has a use for these
_MOVE = re.compile(r"(\w+)\(\d+<(/[^>]*)>(.*)\)\s+= (\d+)$")


@dataclass(frozen=True)
class Move:
    """One call that moved ``size`` bytes; ``offset`` is ``None`` where the call has none."""

    call: str
    path: str
    offset: int | None
    size: int


class Trace:
    """The record of one traced command, in a new ``directory``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        # A record for each thread, so that no line is interrupted by another's.
        self.front = strace(
            "-ff", "-y", "-s", "0", "-o", str(directory / "calls"),
            "-e", f"trace={_MOVES},{_OTHERS}",
        )  # fmt: skip

    def times_read(self, path: Path) -> bytes:
        """How often each byte of the file ``path`` was read."""
        counts = bytearray(path.stat().st_size)
        for move in self._moves(str(path)):
            assert move.offset is not None, move
            for position in range(move.offset, move.offset + move.size):
                counts[position] += 1
        return bytes(counts)

    def bytes_read(self, directory: Path) -> int:
        """All bytes that were read from files below ``directory``."""
        return sum(m.size for m in self._moves(f"{directory}/") if "read" in m.call)

    def bytes_written(self, directory: Path) -> int:
        """All bytes that were written to files below ``directory``."""
        return sum(m.size for m in self._moves(f"{directory}/") if "write" in m.call)

    def _moves(self, start: str) -> Iterator[Move]:
        """Every call that moved bytes of a file whose path begins with ``start``."""
        for line in self._lines():
            if f"<{start}" not in line:
                continue
            assert line.partition("(")[0] in _MOVES.split(","), line
            if match := _MOVE.match(line):
                call, path, arguments, size = match.groups()
                # preadv2(2) and pwritev2(2) have flags behind the offset.
                place = arguments.split(", ")[-2 if call.endswith("v2") else -1]
                yield Move(call, path, int(place) if call[0] == "p" else None, int(size))

    def _lines(self) -> Iterator[str]:
        for record in sorted(self._directory.iterdir()):
            yield from record.read_text("utf-8", errors="replace").splitlines()
