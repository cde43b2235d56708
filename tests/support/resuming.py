"""An install that is interrupted, and the one that goes on: what it must read, and what it read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.store.blobs import collect_garbage
from packager.store.generations import find_generation
from support.bundles import CHUNK_SIZE
from support.hosts import Host, run_install, strace
from support.tiny_source import weights
from support.tracing import Trace
from support.watching import WatchedTask, Watching

CHANCE = random.Random(5)
FILES = {
    "a.safetensors": weights(CHANCE.randbytes(30 * CHUNK_SIZE + 999)),
    "b.safetensors": weights(CHANCE.randbytes(20 * CHUNK_SIZE + 5)),
    "config.json": b'{"layers": 2}\n',
    "empty": b"",
}
VOLUME_SIZE = 12 * CHUNK_SIZE  # the second lies within the first file
MODEL = Digest.of(FILES["a.safetensors"])
SIZE = sum(map(len, FILES.values()))


def index_of(bundle: Path) -> Bundle:
    return parse_bundle((bundle / "bundle.json").read_bytes())


def check_installed(host: Host, number: int = 2, files: dict[str, bytes] = FILES) -> None:
    """Generation ``number`` is current, whole, and nothing else is here."""
    generation = find_generation(host.home, "tiny")
    assert generation.number == number
    directory = generation.path / "original"
    installed = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert installed.pop("model.sig")
    assert installed == files
    assert not host.home.partials.exists()
    assert collect_garbage(host.home) == 0
    assert all(stat.st_mode & 0o777 == 0o444 for stat in map(Path.stat, directory.iterdir()))


def kill_install(host: Host, bundle: Path, call: str, when: int) -> None:
    front = strace("-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={when}")
    assert run_install(host.home, bundle, before=front).returncode != 0


def begin(host: Host, bundle: Path, when: int = 3) -> None:
    """Begin an install, and kill it with its ``when``-th write."""
    kill_install(host, bundle, "pwrite64", when)
    assert host.partials()


def missing_bytes(host: Host, bundle: Path) -> bytes:
    """For each byte of the payload 1 where an install must read it, else 0: seen from outside.

    It must where the byte is in a chunk of a file that is not in the store; but not if the chunk
    lies within one file, and the part of that file which is here has all its bytes.
    """
    index, partials = index_of(bundle), host.partials()
    payload = b"".join(path.read_bytes() for path in sorted(bundle.glob("payload.*")))
    wanted = bytearray(len(payload))
    for begin in range(0, len(payload), CHUNK_SIZE):
        chunk = payload[begin : begin + CHUNK_SIZE]
        end = begin + len(chunk)
        files = [f for f in index.files_touching(begin, end) if f.size]
        files = [f for f in files if not host.home.blob(f.digest).exists()]
        if not files:
            continue
        file = files[0]
        part = partials.get(file.digest.hex, b"")[max(0, begin - file.offset) :][: len(chunk)]
        if not (file.offset <= begin and end <= file.end and part == chunk):
            wanted[begin:end] = b"\1" * len(chunk)
    return bytes(wanted)


def install_traced(host: Host, bundle: Path, place: Path) -> tuple[Trace, int]:
    """Install, and check that each missing byte was read exactly once, and no other.

    Returns the record, and how many bytes of the medium were read.
    """
    missing = missing_bytes(host, bundle)
    trace = Trace(place / "calls")
    done = run_install(host.home, bundle, before=trace.front)
    assert done.returncode == 0, done.stderr
    assert b"".join(map(trace.times_read, sorted(bundle.glob("payload.*")))) == missing
    return trace, sum(missing)


@dataclass
class Meddling(Watching):
    """Does something when the task of that label has done so much."""

    label: str = "installing"
    at: int = 10 * CHUNK_SIZE
    act: Callable[[], object] = field(default=lambda: None)

    @contextmanager
    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> Iterator[WatchedTask]:
        with super().task(label, total, unit=unit, done=done) as task:
            yield _Trap(label, total, done, self) if label == self.label else task


@dataclass
class _Trap(WatchedTask):
    owner: Meddling

    def advance(self, amount: int) -> None:
        super().advance(amount)
        if self.done >= self.owner.at:
            self.owner.act()


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_install(host: Host, bundle: Path, at: int = 10 * CHUNK_SIZE) -> Watching:
    watching = Meddling(at=at, act=interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.install(bundle, progress=watching)
    return watching
