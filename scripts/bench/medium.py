"""What carrying costs, beside what a person would type instead; all in one run, on one disk.

    python scripts/bench/medium.py [--size 4GiB] [--dir DIR] [--runs 3] [--airgap-bundle PATH]

Packs, verifies, installs and repairs a bundle of random bytes, page cache warm. Each step is
timed in turn with what stands beside it, so that whatever else the host does meets both; a ratio
is the median of those of each turn. ``par2``, where it is installed, has one turn, and so has
each step of ``airgap-bundle``, if one says where that is. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from airgap_bundle import AirgapBundle
from signed import TITLE
from tensors import tensor_head

from packager.format.digest import Digest
from packager.format.sizes import format_size, parse_size
from packager.store.digests import file_digest

PACK = Path(__file__).with_name("pack_file.py")
AIRPACK = (sys.executable, "-m", "packager")
PARITY = 2
LOST = ("payload.00003", "payload.00011")
COPY = "cp model.safetensors copy && sync copy"
STOCK_PACK = (
    "tar -c model.safetensors | split -b 1G - part. && sha256sum part.* > sums &&"
    " openssl dgst -sha256 -sign team.key -out sums.sig sums && sync part.*"
)


def main() -> None:
    """Run every step and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("4GiB"))
    parser.add_argument("--dir", type=Path, default=Path.cwd() / "bench")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--airgap-bundle", type=Path, help="the command of that package")
    arguments = parser.parse_args()
    place = arguments.dir.resolve()
    other = None
    if arguments.airgap_bundle:
        other = AirgapBundle(arguments.airgap_bundle.absolute(), place / "airgap-bundle")
    bench = Bench(place, arguments.size, arguments.runs, other)
    bench.prepare()
    bench.tell()
    bench.tell_parity()


@dataclass(frozen=True)
class Step:
    """A command to time, and the shell words that take away what it made."""

    command: Sequence[object]
    clean: str = ":"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One turn of a step: seconds, peak memory in bytes, and what it said."""

    seconds: float
    memory: int
    output: str


@dataclass(frozen=True)
class Bench:
    """One place, one payload of random bytes, and the steps on it."""

    place: Path
    size: int
    runs: int
    other: AirgapBundle | None

    @property
    def model(self) -> Path:
        """The random bytes."""
        return self.place / "model.safetensors"

    @property
    def key(self) -> Path:
        """The signing key."""
        return self.place / "team.key"

    @property
    def bundle(self) -> Path:
        """Where the bundle lies that ``pack`` makes."""
        return self.place / "plain" / TITLE

    @cached_property
    def digest(self) -> Digest:
        """The digest of the random bytes."""
        return file_digest(self.model)

    def prepare(self) -> None:
        """Make the bytes and the key."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        with self.model.open("wb") as stream:
            stream.write(tensor_head(self.size))
            for _ in range(self.size >> 22):
                stream.write(os.urandom(1 << 22))
            stream.truncate(self.size)
        self.run(Step([*AIRPACK, "keys", "generate", self.key, "--no-passphrase", "-q"]))
        if self.other:
            self.other.prepare(self.model, self.digest.hex)

    def tell(self) -> None:
        """Measure what needs no parity, and print it."""
        print(f"{format_size(self.size)} of random bytes, median of {self.runs}\n")
        print("| step | s | peak memory | beside | s | ratio |\n|---|---|---|---|---|---|")
        copy = Step(["sh", "-c", COPY], "rm -f copy")
        stock = Step(["sh", "-c", STOCK_PACK], "rm -f part.* sums*")
        self.compare("pack", self.pack(0), {"`cp` + `sync`": copy})
        self.compare("pack", self.pack(0), {"`tar`, `split`, `sha256sum`, `openssl`": stock})
        self.run(self.pack(0))
        openssl = Step(["sh", "-c", f"openssl dgst -sha256 {self.bundle}/payload.*"])
        sums = Step(["sh", "-c", f"cd {self.bundle} && sha256sum --quiet -c SHA256SUMS"])
        verify = self.judge("verify")
        self.compare("verify", verify, {"`openssl dgst -sha256`": openssl, "`sha256sum -c`": sums})
        install = self.judge("install", "--no-smoke", clean="rm -rf home")
        self.compare("install", install, {"`cp` + `sync`": copy})
        self.tell_other(verify, install)
        self.shell("rm -rf plain home")

    def tell_other(self, verify: Step, install: Step) -> None:
        """Set ``airgap-bundle`` beside pack, verify and install, each once."""
        if not self.other:
            return
        other, name = self.other, "`airgap-bundle`"
        build = Step(other.build, f"rm -f {other.archive}", other.environment)
        self.compare("pack", self.pack(0), {name: build}, runs=1)
        self.run(self.pack(0))
        self.run(build)
        self.compare(
            "verify", verify, {name: Step(other.verify, environment=other.environment)}, runs=1
        )
        clean = f"rm -rf {other.place}/installed"
        theirs = Step(other.install, clean, other.environment)
        self.compare("install", install, {name: theirs}, runs=1)
        self.shell(f"rm -f {other.archive}")

    def tell_parity(self) -> None:
        """Measure parity of two volumes over twenty, and the repair of two that are lost."""
        packed = [self.turn(self.pack(PARITY)) for _ in range(self.runs)]
        times = [tuple(map(float, run.output.split())) for run in packed]
        seconds, processor = (statistics.median(column) for column in zip(*times, strict=True))
        self.run(self.pack(PARITY))
        par2 = self.time_par2()
        for name in LOST:
            (self.bundle / name).unlink()
        mend = self.judge("repair", "--to", self.place / "mended", clean="rm -rf mended")
        look = self.judge("verify", code=12)
        turns = [(self.turn(mend), self.turn(look)) for _ in range(self.runs)]
        whole = statistics.median(mended.seconds for mended, _ in turns)
        alone = statistics.median(mended.seconds - looked.seconds for mended, looked in turns)
        memory = max(run.memory for run in packed), max(mended.memory for mended, _ in turns)
        self.row("parity, 2 over 20", seconds, memory[0], "`par2`", par2 and par2[0])
        self.row("repair of 2 lost volumes", whole, memory[1], "`par2`", par2 and par2[1])
        print()
        for what, took in (
            ("parity", seconds),
            ("parity, of one core's time", processor),
            ("repair, all other volumes verified", whole),
            ("repair, that left out", alone),
        ):
            print(f"{what}: {self.size / took / 1e6:.0f} MB/s of payload")
        self.shell("rm -rf plain mended")

    def time_par2(self) -> tuple[float, float] | None:
        """What ``par2`` takes for one tenth of redundancy, and for the two volumes; each once."""
        if not shutil.which("par2"):
            return None
        place = self.place / "par2"
        shutil.copytree(self.bundle, place)
        create = Step(["sh", "-c", f"cd {place} && par2 create -q -q -r10 -n1 p payload.*"])
        made = self.turn(create)
        for name in LOST:
            (place / name).unlink()
        mended = self.turn(
            Step(["sh", "-c", f"cd {place} && par2 repair -q -q p.par2 payload.* > said"])
        )
        for name in LOST:
            assert file_digest(place / name) == file_digest(self.bundle / name)
        shutil.rmtree(place)
        return made.seconds, mended.seconds

    def pack(self, parity: int) -> Step:
        """Pack and sign; the model's digest is known by then, as it is in a build."""
        words = (PACK, self.model, self.digest, self.place / "plain", self.key, parity)
        return Step([sys.executable, *words], "rm -rf plain")

    def judge(self, verb: str, *words: object, clean: str = ":", code: int = 0) -> Step:
        """An airpack command on the bundle, which must end with ``code``."""
        command = (*AIRPACK, verb, self.bundle, "--pub", f"{self.key}.pub", "-q", *words)
        text = " ".join(map(str, command))
        return Step(["sh", "-c", f"{text} 2> said; test $? = {code}"] if code else command, clean)

    def compare(self, name: str, ours: Step, others: Mapping[str, Step], runs: int = 0) -> None:
        """Time ``ours`` and ``others`` in turns, and print a row for each of these."""
        steps = {name: ours, **others}
        turns = [
            {each: self.turn(step) for each, step in steps.items()}
            for _ in range(runs or self.runs)
        ]
        memory = max(turn[name].memory for turn in turns)
        seconds = statistics.median(turn[name].seconds for turn in turns)
        for other in others:
            ratio = statistics.median(turn[name].seconds / turn[other].seconds for turn in turns)
            theirs = statistics.median(turn[other].seconds for turn in turns)
            self.row(name, seconds, memory, other, theirs, ratio)

    def row(
        self,
        step: str,
        ours: float,
        memory: int,
        what: str,
        theirs: float | None,
        ratio: float | None = None,
    ) -> None:
        """One line: how many times as long as theirs ours takes, or the other way round."""
        beside = "not installed | |"
        if theirs:
            ratio = ratio or ours / theirs
            words = f"{ratio:.2f}x" if ratio >= 1 else f"{1 / ratio:.1f} times as fast"
            beside = f"{theirs:.2f} | {words} |"
        size = format_size(memory)
        print(f"| {step} | {ours:.2f} | {size} | {what} | {beside}", flush=True)

    def turn(self, step: Step) -> Run:
        """Time a step, in a clean place with all earlier writes on the disk."""
        self.shell(f"{step.clean}; sync")
        run = self.run(step)
        self.shell(step.clean)
        return run

    def shell(self, command: str) -> None:
        """Run shell words in the place."""
        self.run(Step(["sh", "-c", command]))

    def run(self, step: Step) -> Run:
        """Run a command in the place."""
        environment = {**os.environ, "AIRPACK_HOME": str(self.place / "home"), **step.environment}
        command = [str(word) for word in step.command]
        begun = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.place, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
        return Run(time.monotonic() - begun, usage.ru_maxrss << 10, output)


if __name__ == "__main__":
    main()
