"""What carrying costs, beside what a person would type instead; all in one run, on one disk.

    python scripts/bench/medium.py [--size 4GiB] [--dir DIR] [--runs 3]

Packs, verifies, installs and repairs a bundle of random bytes, page cache warm. Prints a table:
the median seconds of each step, its ratio to stock tools on the same bytes, and the peak memory
of each airpack process. ``par2`` is set beside parity where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.format.sizes import format_size, parse_size
from packager.store.digests import file_digest

PACK = Path(__file__).with_name("pack_file.py")
AIRPACK = (sys.executable, "-m", "packager")


@dataclass(frozen=True)
class Timing:
    """Median seconds of a step, and the most memory that it took, in bytes."""

    seconds: float
    memory: int


def main() -> None:
    """Run every step and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("4GiB"))
    parser.add_argument("--dir", type=Path, default=Path.cwd() / "bench")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    bench = Bench(arguments.dir, arguments.size, arguments.runs)
    bench.prepare()
    bench.tell()


class Bench:
    """One place, one payload of random bytes, and the steps on it."""

    def __init__(self, place: Path, size: int, runs: int) -> None:
        self.place, self.size, self.runs = place, size, runs
        self.model = place / "model.safetensors"
        self.key = place / "team.key"

    def prepare(self) -> None:
        """Make the bytes and the key."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        with self.model.open("wb") as stream:
            for _ in range(self.size >> 22):
                stream.write(os.urandom(1 << 22))
        self.run([*AIRPACK, "keys", "generate", str(self.key), "--no-passphrase", "-q"])
        self.digest = file_digest(self.model)

    def tell(self) -> None:
        """Measure, and print."""
        copy = self.shell("cp model.safetensors copy && sync copy", "rm -f copy")
        print(f"{format_size(self.size)} of random bytes, median of {self.runs}\n")
        print("| step | s | peak memory | beside | s | ratio |\n|---|---|---|---|---|---|")
        pack = self.time(lambda: self.pack(0), "rm -rf plain")
        self.row("pack, no parity", pack, "`cp` + `sync`", copy)
        stock = self.shell(
            "tar -c model.safetensors | split -b 1G - part. && sha256sum part.* > sums &&"
            " openssl dgst -sha256 -sign team.key -out sums.sig sums && sync part.*",
            "rm -f part.* sums*",
        )
        self.row("pack, no parity", pack, "`tar`, `split`, `sha256sum`, `openssl`", stock)
        self.pack(0)
        bundle = next((self.place / "plain").iterdir())
        verify = self.time(lambda: self.airpack("verify", bundle, *self.pub), "")
        self.row(
            "verify",
            verify,
            "`openssl dgst -sha256`",
            self.shell(f"openssl dgst -sha256 {bundle}/payload.*", ""),
        )
        self.row(
            "verify",
            verify,
            "`sha256sum -c`",
            self.shell(f"cd {bundle} && sha256sum --quiet -c SHA256SUMS", ""),
        )
        install = self.time(
            lambda: self.airpack("install", bundle, "--no-smoke", *self.pub), "rm -rf home"
        )
        self.row("install", install, "`cp` + `sync`", copy)
        self.shell_once("rm -rf home plain")
        self.tell_parity()

    def tell_parity(self) -> None:
        """Measure parity of two volumes over twenty, and the repair of two that are lost."""
        with_parity = self.time(lambda: self.pack(2), "rm -rf plain")
        without = self.time(lambda: self.pack(0), "rm -rf plain")
        parity = Timing(with_parity.seconds - without.seconds, with_parity.memory)
        self.pack(2)
        bundle = next((self.place / "plain").iterdir())
        par2 = par2_repair = None
        if shutil.which("par2"):
            par2 = self.shell(
                f"cd {bundle} && par2 create -q -q -r10 -n1 ../p payload.*", f"rm -f {bundle}/../p*"
            )
            self.shell_once(f"cd {bundle} && par2 create -q -q -r10 -n1 p payload.*")
        lost = ("payload.00003", "payload.00011")
        for name in lost:
            (bundle / name).rename(self.place / name)
        if par2:
            par2_repair = self.time(
                lambda: self.run(
                    ["sh", "-c", f"cd {bundle} && par2 repair -q -q p.par2 payload.*"]
                ),
                f"rm -f {bundle}/payload.00003 {bundle}/payload.00011 {bundle}/*.[1-9]",
            )
            self.shell_once(f"rm -f {bundle}/p.* {bundle}/*.[1-9]")
        mend = self.time(
            lambda: self.airpack("repair", bundle, "--to", self.place / "more", *self.pub),
            "rm -rf more",
        )
        name = "`par2`" if par2 else "`par2` (not installed)"
        self.row("parity, 2 over 20", parity, name, par2)
        self.row("repair of 2 lost volumes", mend, name, par2_repair)
        print(f"\nparity: {self.size / parity.seconds / 1e6:.0f} MB/s of payload")
        print(f"repair, verifying included: {self.size / mend.seconds / 1e6:.0f} MB/s of payload")

    @property
    def pub(self) -> tuple[str, ...]:
        return ("--pub", f"{self.key}.pub", "-q")

    def pack(self, parity: int) -> int:
        """Pack, sign; the model's digest is known by then, as it is in a build."""
        words = (PACK, self.model, self.digest, self.place / "plain", self.key, parity)
        return self.run([sys.executable, *map(str, words)])

    def airpack(self, *words: str | Path) -> int:
        return self.run([*AIRPACK, *map(str, words)])

    def shell(self, command: str, clean: str) -> Timing:
        return self.time(lambda: self.run(["sh", "-c", command]), clean)

    def shell_once(self, command: str) -> None:
        self.run(["sh", "-c", command])

    def time(self, step: Callable[[], int], clean: str) -> Timing:
        """The median of some runs, each in a clean place with all earlier writes on the disk."""
        seconds, memory = [], 0
        for _ in range(self.runs):
            self.shell_once(f"{clean or ':'}; sync")
            begun = time.monotonic()
            memory = max(memory, step())
            seconds.append(time.monotonic() - begun)
        self.shell_once(clean or ":")
        return Timing(statistics.median(seconds), memory)

    def run(self, command: Sequence[str]) -> int:
        """Run a command in the place; returns its peak memory in bytes."""
        environment = {**os.environ, "AIRPACK_HOME": str(self.place / "home")}
        process = subprocess.Popen(
            command, cwd=self.place, env=environment, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{json.dumps(list(command))} ended with {process.returncode}")
        return usage.ru_maxrss << 10

    def row(self, step: str, ours: Timing, what: str, theirs: Timing | None) -> None:
        """One line: how many times as long as theirs ours takes, or the other way round."""
        beside = "| | |"
        if theirs:
            ratio = ours.seconds / theirs.seconds
            words = f"{ratio:.2f}x" if ratio >= 1 else f"{1 / ratio:.1f} times as fast"
            beside = f"| {theirs.seconds:.2f} | {words} |"
        print(
            f"| {step} | {ours.seconds:.2f} | {format_size(ours.memory)} | {what} {beside}",
            flush=True,
        )


if __name__ == "__main__":
    main()
