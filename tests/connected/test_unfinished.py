"""The hidden directory that a bundle is built in: what is gone on with, and what stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from support.hosts import child_env, strace
from support.watching import Watching

from packager.connected.packing.unfinished import going_on
from packager.errors import HostError, IntegrityError, NoSpaceError, UsageError
from packager.progress import Silent


@pytest.mark.parametrize("there", ["link", "file", "nothing"])
def test_55_what_is_no_directory_is_not_built_in(tmp_path: Path, there: str) -> None:
    directory, victim = tmp_path / "demo", tmp_path / "victim"
    victim.mkdir()
    (victim / "payload.00001").write_bytes(b"mine")
    place = tmp_path / ".demo.unfinished"
    if there == "link":
        place.symlink_to(victim)
    elif there == "file":
        place.write_bytes(b"in the way")

    with going_on(directory, {"payload.00001"}, Silent()) as given:
        assert list(given.iterdir()) == []
        (given / "payload.00001").write_bytes(b"new")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "victim"]
    assert (victim / "payload.00001").read_bytes() == b"mine"
    assert (directory / "payload.00001").read_bytes() == b"new"


def test_55_56_only_regular_files_of_its_own_are_gone_on_with(tmp_path: Path) -> None:
    place, victim = tmp_path / ".demo.unfinished", tmp_path / "victim"
    place.mkdir()
    victim.write_bytes(b"mine")
    names = ("good", "link", "second-name", "pipe", "folder")
    (place / "good").write_bytes(b"good")
    (place / "link").symlink_to(victim)
    os.link(victim, place / "second-name")
    os.mkfifo(place / "pipe")
    (place / "folder" / "below").mkdir(parents=True)
    (place / "unknown").write_bytes(b"old")

    with going_on(tmp_path / "demo", names, Silent()) as given:
        left = [path.name for path in given.iterdir()]

    assert left == ["good"]
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (NoSpaceError("full"), True),
        (HostError("refused"), True),
        (KeyboardInterrupt(), True),
        (OSError("raw"), True),
        (IntegrityError("changed"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_build_leaves_what_was_written_unless_bytes_were_found_wrong(
    tmp_path: Path, error: BaseException, stays: bool
) -> None:
    def ended() -> None:
        with going_on(tmp_path / "demo", {"payload.00001"}, watching) as place:
            (place / "payload.00001").write_bytes(bytes(2048))
            raise error

    watching = Watching()
    raised = HostError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised) as caught:
        ended()

    left = [path.name for path in tmp_path.iterdir()]
    said = f"{getattr(caught.value, 'hint', '')} {watching.notes}"
    assert left == ([".demo.unfinished"] if stays else [])
    assert (f"2 KiB stay in {tmp_path / '.demo.unfinished'}" in said) == stays


def test_where_nothing_was_written_nothing_stays(tmp_path: Path) -> None:
    def ended() -> None:
        with going_on(tmp_path / "demo", {"payload.00001"}, Silent()):
            raise UsageError("exists already")

    with pytest.raises(UsageError) as caught:
        ended()

    assert list(tmp_path.iterdir()) == []
    assert caught.value.hint is None


_MAKE = """
import sys
from pathlib import Path
from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.connected.packing.unfinished import going_on
from packager.progress import Silent
from packager.store.atomic import write_file
from packager.store.digests import file_digest
source, directory = map(Path, sys.argv[1:])
member = Member("m/0", source, source.stat().st_size, file_digest(source))
plan = plan_payload([member], 10 << 20, 1)
with going_on(directory, {volume.name for volume in plan.volumes}, Silent()) as place:
    packed = write_payload(plan, place, Silent())
    sums = write_parity(plan, packed.payload, place, Silent())
    write_file(place / "sums", repr((packed, sums)).encode())
"""


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("call", "step"),
    [("mkdir", 1), ("pwrite64", 1), ("write", 23), ("fsync", 1), ("rename", 1)],
)
def test_102_sigkill_at_any_call_that_changes_a_file_and_the_next_run_makes_the_same(
    tmp_path: Path, call: str, step: int
) -> None:
    """Each run goes on with what the one before it left, after the kill and once more."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(13 << 20))
    command = [sys.executable, "-c", _MAKE, str(source)]
    subprocess.run([*command, str(tmp_path / "clean")], env=child_env(), check=True, timeout=60)
    clean, out = contents(tmp_path / "clean"), tmp_path / "out"

    for when in count(1, step):
        inject = f"inject={call}:signal=KILL:when={when}"
        front = strace("-o", os.devnull, "-e", inject)
        out.mkdir()
        done = subprocess.run([*front, *command, str(out / "m")], env=child_env(), check=False)
        if done.returncode == 0:
            break
        assert not (out / "m").exists() or contents(out / "m") == clean
        if not (out / "m").exists():
            subprocess.run([*command, str(out / "m")], env=child_env(), check=True, timeout=60)
        assert contents(out / "m") == clean
        assert [path.name for path in out.iterdir()] == ["m"]
        shutil.rmtree(out)

    assert when > 1
