"""The most memory that each command takes, from small bundles to ones of a simulated terabyte.

    python scripts/bench/memory.py [--sizes 1GiB,64GiB,1TiB] [--wide 253+2,155+100]
        [--steps inspect,...] [--read 64GiB] [--write 4GiB] [--dir DIR] [--json]

The bundles are of zeros in sparse files (``simulated.py``): the index, which is what grows, is as
large as a real one's, and the disk is not. Steps that read the whole payload are left out above
``--read`` bytes of it, those that write it above ``--write``. What parity takes does not depend on
the payload but on the volumes: it is measured on bundles of random bytes, of one stripe of the
largest chunks over as many volumes as there may be. Prints a table, or JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from signed import TITLE
from simulated import zeros_digest

from packager.format.bundle import INDEX_NAME
from packager.format.sizes import format_size, parse_size

HERE = Path(__file__).parent
AIRPACK = (sys.executable, "-m", "packager")
ON_SMALL_DISK = 'mount -t tmpfs -o size=64m tmpfs "$0" && exec "$@"'
PLACE_OF_BYTE = 1 << 20  # in a volume; behind any header


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=_sizes, default=_sizes("1GiB,64GiB,1TiB"))
    parser.add_argument("--wide", type=_codes, default=_codes("253+2,155+100"))
    parser.add_argument("--steps", type=lambda text: text.split(","))
    parser.add_argument("--read", type=parse_size, default=parse_size("64GiB"))
    parser.add_argument("--write", type=parse_size, default=parse_size("4GiB"))
    parser.add_argument("--dir", type=Path, default=Path.cwd() / "bench-memory")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(arguments.dir, arguments.steps, arguments.read, arguments.write)
    rows = [row for size in arguments.sizes for row in bench.measure(size)]
    rows += [
        row for volumes, parity in arguments.wide for row in bench.measure_wide(volumes, parity)
    ]
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else _table(rows))


def _sizes(text: str) -> list[int]:
    return [parse_size(size) for size in text.split(",")]


def _codes(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, code.split("+"))) for code in text.split(",")]


@dataclass(frozen=True)
class Taken:
    """What a command took: seconds, and the bytes of memory that were resident at most."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Row:
    """A line of the table; ``memory`` in bytes."""

    step: str
    payload: str
    seconds: float
    memory: int


def _table(rows: Sequence[Row]) -> str:
    lines = ["| command | payload | s | peak memory |", "|---|---|---|---|"]
    for row in rows:
        memory = format_size(row.memory)
        lines.append(f"| {row.step} | {row.payload} | {row.seconds:.2f} | {memory} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Bench:
    """Where it happens, which steps, and up to which sizes they read or write all of a payload."""

    place: Path
    steps: Collection[str] | None
    read: int
    write: int

    def measure(self, size: int) -> Iterator[Row]:
        """Each step on a simulated bundle of ``size`` bytes."""
        limits = {Effort.NONE: size, Effort.READS: self.read, Effort.WRITES: self.write}
        steps = [name for name in self._chosen(STEPS) if size <= limits[STEPS[name][1]]]
        if steps:
            with self._bundle() as bundle:
                run([sys.executable, HERE / "simulated.py", size, *bundle.places], 0)
                for name in steps:
                    yield self._row(name, format_size(size), STEPS[name][0](bundle))

    def measure_wide(self, volumes: int, parity: int) -> Iterator[Row]:
        """Each step that has to do with parity, on ``volumes`` and ``parity`` volumes."""
        if not (steps := self._chosen(PARITY_STEPS)):
            return
        with self._bundle() as bundle:
            words = ("wide", *bundle.places, volumes, parity)
            made = run([sys.executable, HERE / "one_step.py", *words], 0)
            payload = f"{volumes} + {parity} volumes"
            if "pack with parity" in steps:
                yield self._row("pack with parity", payload, made)
            for name in steps:
                if step := PARITY_STEPS[name]:
                    yield self._row(name, payload, step(bundle, parity))

    def _chosen(self, steps: Collection[str]) -> list[str]:
        return [name for name in steps if self.steps is None or name in self.steps]

    @contextmanager
    def _bundle(self) -> Iterator[Bundle]:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        try:
            yield Bundle(self.place)
        finally:
            shutil.rmtree(self.place, ignore_errors=True)

    def _row(self, step: str, payload: str, taken: Taken) -> Row:
        row = Row(step, payload, taken.seconds, taken.memory)
        print(row, file=sys.stderr)
        return row


class Bundle:
    """A bundle in a place of its own, and commands on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key = place / "team.key"
        self.directory = place / TITLE
        self.airpack(0, "keys", "generate", self.key, "--no-passphrase")

    @property
    def places(self) -> tuple[Path, Path]:
        """Where a bundle is to be made, and with which key."""
        return self.place, self.key

    @property
    def volumes(self) -> list[Path]:
        """The payload's volumes that are there, in order."""
        return sorted(self.directory.glob("payload.*"))

    def airpack(self, code: int, *words: object) -> Taken:
        """Run a command, which must end with ``code``."""
        return run([*AIRPACK, *words, "-q", "--no-input"], code, home=self.place / "home")

    def judge(self, code: int, verb: str, *words: object) -> Taken:
        """Run a command on the bundle that asks for its key."""
        return self.airpack(code, verb, self.directory, "--pub", f"{self.key}.pub", *words)

    @contextmanager
    def without(self, volumes: slice) -> Iterator[None]:
        """Those of the payload's volumes left on another stick."""
        other = self.place / "other"
        other.mkdir()
        for path in self.volumes[volumes]:
            path.rename(other / path.name)
        yield
        for path in other.iterdir():
            path.rename(self.directory / path.name)
        other.rmdir()

    def damage(self, count: int) -> None:
        """Change a byte in the same stripe of so many volumes; the next time, change it back."""
        for path in self.volumes[:count]:
            with path.open("r+b") as stream:
                [byte] = os.pread(stream.fileno(), 1, PLACE_OF_BYTE)
                os.pwrite(stream.fileno(), bytes([byte ^ 0xFF]), PLACE_OF_BYTE)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A place in which much is written, and which is gone afterwards."""
        yield self.place / name
        shutil.rmtree(self.place / name, ignore_errors=True)


def run(words: Sequence[object], code: int, home: Path | None = None) -> Taken:
    """Run a command that must end with ``code``."""
    command = [str(word) for word in words]
    environment = {**os.environ, "AIRPACK_HOME": str(home)}
    begun = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"{command} ended with {process.returncode}: {said.decode()}")
    # Linux counts what this process had when it began the other: it is small, and stays so.
    return Taken(time.monotonic() - begun, usage.ru_maxrss << 10)


def _parse(bundle: Bundle) -> Taken:
    words = (HERE / "one_step.py", "parse", bundle.directory / INDEX_NAME)
    return run([sys.executable, *words], 0)


def _inspect(bundle: Bundle) -> Taken:
    return bundle.airpack(0, "inspect", bundle.directory)


def _diff(bundle: Bundle) -> Taken:
    return bundle.airpack(0, "diff", bundle.directory, bundle.directory)


def _verify_one_volume(bundle: Bundle) -> Taken:
    with bundle.without(slice(1, None)):
        return bundle.judge(12, "verify")


def _install_without(bundle: Bundle) -> Taken:
    with bundle.without(slice(0, 1)):
        return bundle.judge(12, "install", "--no-smoke")


def _copy_to_small(bundle: Bundle) -> Taken:
    """To a stick that has room for the small files, and for no volume."""
    with bundle.writing("stick") as stick:
        stick.mkdir()
        before = ("unshare", "-rm", "sh", "-c", ON_SMALL_DISK, stick)
        return run([*before, *AIRPACK, "copy", bundle.directory, stick, "-q", "--no-input"], 13)


def _verify(bundle: Bundle) -> Taken:
    return bundle.judge(0, "verify")


def _install(bundle: Bundle) -> Taken:
    with bundle.writing("home"):
        return bundle.judge(0, "install", "--no-smoke")


def _copy(bundle: Bundle) -> Taken:
    with bundle.writing("stick") as stick:
        stick.mkdir()
        return bundle.airpack(0, "copy", bundle.directory, stick, "--verify")


def _pack(bundle: Bundle) -> Taken:
    size = sum(path.stat().st_size for path in bundle.volumes)
    with bundle.writing("packed") as packed:
        packed.mkdir()
        model = packed / "model.safetensors"
        with model.open("wb") as stream:
            stream.truncate(size)
        words = (HERE / "pack_file.py", model, zeros_digest(size), packed, bundle.key, 0)
        return run([sys.executable, *words], 0)


def _repair_chunks(bundle: Bundle, parity: int) -> Taken:
    bundle.damage(parity)
    return bundle.judge(0, "repair", "--in-place")


def _repair_volumes(bundle: Bundle, parity: int) -> Taken:
    with bundle.without(slice(1, 1 + parity)), bundle.writing("mended") as mended:
        return bundle.judge(0, "repair", "--to", mended)


def _install_mending(bundle: Bundle, parity: int) -> Taken:
    with bundle.without(slice(1, 1 + parity)), bundle.writing("home"):
        return bundle.judge(0, "install", "--no-smoke")


def _ask(bundle: Bundle, parity: int) -> Taken:
    bundle.damage(parity + 1)
    taken = bundle.judge(10, "verify", "--ticket", bundle.place / "ticket")
    bundle.damage(parity + 1)
    return taken


def _answer(bundle: Bundle, _parity: int) -> Taken:
    """Of the ticket that was written just before."""
    words = ("--for-ticket", bundle.place / "ticket", "-o", bundle.place, "--key", bundle.key)
    return bundle.airpack(0, "build", bundle.directory, *words)


class Effort:
    """What a step does with the whole payload."""

    NONE, READS, WRITES = "none", "reads", "writes"


STEPS: dict[str, tuple[Callable[[Bundle], Taken], str]] = {
    "parse the index": (_parse, Effort.NONE),
    "inspect": (_inspect, Effort.NONE),
    "diff": (_diff, Effort.NONE),
    "verify of one volume": (_verify_one_volume, Effort.NONE),
    "install with one missing": (_install_without, Effort.NONE),
    "copy to a stick too small": (_copy_to_small, Effort.NONE),
    "verify": (_verify, Effort.READS),
    "install": (_install, Effort.WRITES),
    "copy --verify": (_copy, Effort.WRITES),
    "pack": (_pack, Effort.WRITES),
}
PARITY_STEPS: dict[str, Callable[[Bundle, int], Taken] | None] = {
    "pack with parity": None,
    "repair of as many bad chunks": _repair_chunks,
    "repair of as many lost volumes": _repair_volumes,
    "install with as many lost": _install_mending,
    "verify --ticket": _ask,
    "build --for-ticket": _answer,
}


if __name__ == "__main__":
    main()
