"""``scripts/crash_sweep``: its short form, and that it finds what it looks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosts import child_env, strace

SCRIPT = Path(__file__).parents[2] / "scripts" / "crash_sweep"
IN_PLACE = """
import packager.store.atomic as atomic

def write_file(path, data, *, mode=0o644):
    path.write_bytes(data)

atomic.write_file = write_file
"""


def crash_sweep(
    place: Path, *options: str, patches: Path | None = None, timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run the sweep in ``place``; a module in ``patches`` changes airpack for it."""
    strace()
    env = {**child_env(), "TMPDIR": str(place)}
    if patches:
        env["PYTHONPATH"] = f"{patches}:{env['PYTHONPATH']}"
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--json", *options],
        env=env, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def check_clean(done: subprocess.CompletedProcess[str]) -> list[dict[str, int]]:
    """Nothing failed, of something; returns the rows."""
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, int]] = json.loads(done.stdout)
    assert [row["failures"] for row in rows] == [0] * len(rows)
    return rows


def test_102_a_first_key_may_be_killed_or_refused_at_any_of_some_calls(tmp_path: Path) -> None:
    (row,) = check_clean(
        crash_sweep(tmp_path, "--commands", "trust add, the first", "--every", "5")
    )
    assert row["calls"] > 20
    assert all(row[fault] > 3 for fault in ("kill", "EIO", "ENOSPC", "EIO on"))


def test_a_file_written_in_place_does_not_pass_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(IN_PLACE)
    done = crash_sweep(tmp_path, "--commands", "trust remove", "--faults", "kill", patches=tmp_path)
    assert done.returncode == 1
    (row,) = json.loads(done.stdout)
    assert 0 < row["failures"] < row["kill"]
    assert "FAILED: trust remove: kill: write trust/keyring.json" in done.stderr
    assert "  $ rm -rf " in done.stderr
    kept = re.search("^kept, for the commands above: (.*)$", done.stderr, re.MULTILINE)
    assert kept
    assert Path(kept[1], "homes", "trust-remove", "log.jsonl").exists()


@pytest.mark.sweep
def test_102_every_command_may_be_killed_or_refused_at_any_of_some_calls(tmp_path: Path) -> None:
    rows = check_clean(crash_sweep(tmp_path, "--every", "15", timeout=600))
    assert sum(row["calls"] for row in rows) > 500


@pytest.mark.sweep
def test_99_every_command_stands_a_disk_that_is_really_full(tmp_path: Path) -> None:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this host lets nobody make a namespace with a disk of its own")
    rows = check_clean(crash_sweep(tmp_path, "--full-disk", "--every", "15", timeout=600))
    assert all(row["of bytes"] and row["of inodes"] for row in rows)
