#!/usr/bin/env python3
"""Look for bytes that a parser neither takes nor refuses as it should.

    .venv/bin/pip install atheris
    .venv/bin/python scripts/fuzz.py                      # the names of the parsers
    .venv/bin/python scripts/fuzz.py sums --seconds 600
    .venv/bin/python scripts/fuzz.py sums --seconds 600 --by hypothesis
    .venv/bin/python scripts/fuzz.py sums --keep

Begins with the files of ``tests/corpora/NAME``. Atheris is guided by what the parser's code does:
what was new to it is kept below ``build/fuzz``, beside what broke a promise of
``tests/support/fuzz_targets.py``. ``--keep`` chooses from there: the smallest file for each step
that the code takes goes into the corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ROOT / "tests" / "corpora"
FOUND = ROOT / "build" / "fuzz"
MAX_KEPT_SIZE = 1024  # bytes of a file that goes into the corpus
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    """Read the command line and fuzz, or keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("target", nargs="?", help="which parser")
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--by", choices=("atheris", "hypothesis"), default="atheris")
    parser.add_argument("--keep", action="store_true", help="put what was found into the corpus")
    options = parser.parse_args()
    if options.target is None:
        from support.fuzz_targets import TARGETS

        print("\n".join(TARGETS))
    elif options.keep:
        keep(options.target)
    elif options.by == "hypothesis":
        fuzz_by_hypothesis(options.target, options.seconds)
    else:
        fuzz_by_atheris(options.target, options.seconds)


_AsWritten = argparse.RawDescriptionHelpFormatter


def fuzz_by_atheris(name: str, seconds: int) -> None:
    """Run libFuzzer on the target ``name``; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["packager", "yaml"]):
        from support.fuzz_targets import MAX_INPUT_SIZE, TARGETS, check
    from support.fuzz_mutations import mutate

    def run(data: bytes) -> None:
        check(TARGETS[name], data)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return mutate(name, data, random)[:max_size]

    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    (CORPORA / name).mkdir(parents=True, exist_ok=True)
    limits = [f"-max_len={MAX_INPUT_SIZE}", "-rss_limit_mb=1024", "-timeout=10"]
    folders = [str(found), str(CORPORA / name)]
    crashes = f"-artifact_prefix={FOUND}/{name}-"
    command = [sys.argv[0], crashes, f"-max_total_time={seconds}", *limits, *folders]
    atheris.Setup(command, run, custom_mutator=change)
    atheris.Fuzz()


def fuzz_by_hypothesis(name: str, seconds: int) -> None:
    """Change the files of the corpus in ways that hypothesis chooses, and shrinks."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from support.fuzz_mutations import mutate
    from support.fuzz_targets import TARGETS, check

    seeds = [path.read_bytes() for path in sorted((CORPORA / name).iterdir())]
    counts = {True: 0, False: 0}

    @settings(
        max_examples=5000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    def run(seed: bytes, random: Random) -> None:
        counts[check(TARGETS[name], mutate(name, seed, random))] += 1

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run()
    print(f"{name}: {counts[True]} taken, {counts[False]} refused, none otherwise")


Step = tuple[str, int, int]
"""A file of the package, and two lines that were run there one after the other."""


def keep(name: str) -> None:
    """Copy what was found into the corpus, where the files before it do not take all its steps."""
    from support.fuzz_targets import TARGETS, check

    corpus = CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    known: set[Step] = set()
    found = sorted((FOUND / name).iterdir(), key=lambda path: (path.stat().st_size, path.name))
    for path in [*sorted(corpus.iterdir()), *found]:
        data = path.read_bytes()
        if path.parent != corpus and len(data) > MAX_KEPT_SIZE:
            continue
        with _steps() as steps:
            check(TARGETS[name], data)
        if path.parent != corpus and not steps <= known:
            (corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
        known |= steps
    print(f"{name}: {len(list(corpus.iterdir()))} files, {len(known)} steps")


@contextmanager
def _steps() -> Iterator[set[Step]]:
    """The steps that the package's code takes meanwhile."""
    steps: set[Step] = set()
    package = str(ROOT / "packager")

    def enter(frame: FrameType, _event: str, _: object) -> object:
        file, before = frame.f_code.co_filename, 0
        if not file.startswith(package):
            return None

        def line(frame: FrameType, event: str, _: object) -> object:
            nonlocal before
            if event == "line":
                steps.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        yield steps
    finally:
        sys.settrace(None)


if __name__ == "__main__":
    main()
