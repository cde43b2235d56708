"""No command takes more memory for a large bundle than any host has; a terabyte is simulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench" / "memory.py"
MOST = 300_000_000  # bytes
# As on a processor without SHA instructions: what waits for a digest waits in memory. See
# OPENSSL_ia32cap(3); bit 29 of the second word.
SLOW_DIGESTS = {"OPENSSL_ia32cap": ":~0x20000000"}


def measured(place: Path, *words: str) -> dict[str, int]:
    """The memory in bytes of each step, by name."""
    command = [sys.executable, str(BENCH), "--json", "--dir", str(place / "bench"), *words]
    done = subprocess.run(
        command,
        env={**os.environ, **SLOW_DIGESTS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {f"{row['step']}, {row['payload']}": row["memory"] for row in json.loads(done.stdout)}


@pytest.mark.sweep
def test_the_index_of_a_terabyte_stays_within_memory(tmp_path: Path) -> None:
    steps = "parse the index,inspect,diff,verify of one volume,install with one missing"
    memory = measured(tmp_path, "--sizes", "1TiB", "--steps", steps)
    assert len(memory) == 5
    assert {name for name, size in memory.items() if size > MOST} == set()


@pytest.mark.sweep
def test_parity_over_as_many_volumes_as_there_may_be_stays_within_memory(tmp_path: Path) -> None:
    steps = "pack with parity,repair of as many bad chunks,install with as many lost"
    memory = measured(tmp_path, "--sizes", "1GiB", "--steps", steps, "--wide", "253+2")
    assert len(memory) == 3
    assert {name for name, size in memory.items() if size > MOST} == set()
