from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key
from support.hosts import Host, child_env, make_host, strace
from support.tiny_source import weights

from packager.errors import HostError, NoSpaceError, UsageError
from packager.store.atomic import swap_symlink
from packager.store.generations import (
    Removal,
    find_generation,
    finish_removals,
    generations,
    installed_names,
    make_current,
    next_number,
    remove,
    staging,
    sweep_leftovers,
)
from packager.store.home import Home

PUBLISH = """
import sys
from pathlib import Path
from packager.errors import AirpackError
from packager.store.generations import next_number, publish, staging
from packager.store.home import Home
home = Home(Path(sys.argv[1]))
try:
    with staging(home, "tiny") as staged:
        (staged / "file").write_bytes(b"x")
        publish(home, "tiny", next_number(home, "tiny"), staged)
except AirpackError as error:
    sys.exit(error.message)
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with two generations of a model; the second is current."""
    key = make_key(tmp_path / "team")
    host = make_host(tmp_path / "home", key)
    for number in (1, 2):
        files = {"model.safetensors": weights(b"%d" % number * 1000)}
        out = tmp_path / str(number)
        host.install(make_bundle(out, [key], sequence=number, version=f"{number}.0", files=files))
    return host


def no_record(_removal: Removal) -> None:
    """Nothing to write down."""


def names(home: Home) -> list[str]:
    return sorted(path.name for path in (home.models / "tiny").iterdir())


def test_current_is_one_symbolic_link_to_a_number(host: Host) -> None:
    assert names(host.home) == ["1", "2", "current"]
    assert str((host.home.models / "tiny" / "current").readlink()) == "2"
    assert [g.current for g in generations(host.home, "tiny")] == [False, True]
    make_current(host.home, "tiny", 1)
    assert str((host.home.models / "tiny" / "current").readlink()) == "1"
    assert names(host.home) == ["1", "2", "current"]


def test_a_generation_knows_its_bundle_its_receipt_and_its_size(host: Host) -> None:
    found = find_generation(host.home, "tiny", 1)
    assert (found.bundle.version, found.receipt.generation, found.size) == ("1.0", 1, 1000)
    assert not found.current


def test_a_number_is_not_given_twice_while_a_later_one_is_there(host: Host) -> None:
    remove(host.home, "tiny", 1, no_record)
    assert next_number(host.home, "tiny") == 3
    assert names(host.home) == ["2", "current"]


def test_staging_that_is_not_published_leaves_nothing(host: Host) -> None:
    before = host.state()
    for name in ("tiny", "other"):
        with staging(host.home, name) as staged:
            (staged / "file").write_text("x")
    assert host.state() == before
    assert not (host.home.models / "other").exists()


# Directories made durable, in order: the staged one, and the model's behind the mark, the
# generation's number, and the link.
@pytest.mark.parametrize(
    "fault",
    ["fsync:error=EIO:when=1", "fsync:error=EIO:when=2", "fsync:error=EIO:when=3",
     "fsync:error=EIO:when=4", "symlink:error=ENOSPC:when=1", "symlink:error=ENOSPC:when=2",
     "rename:error=EIO:when=1", "rename:error=EIO:when=2"],
)  # fmt: skip
def test_100_publishing_that_the_disk_refuses_leaves_the_old_generation_current(
    host: Host, fault: str
) -> None:
    before = host.state()
    front = strace("-o", os.devnull, "-e", f"inject={fault}")
    done = subprocess.run(
        [*front, sys.executable, "-c", PUBLISH, str(host.home.root)],
        env=child_env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(host.home.root) in done.stderr
    assert "Traceback" not in done.stderr
    assert host.state() == before


def test_what_interrupted_commands_left_is_swept_and_nothing_else(host: Host) -> None:
    before = host.state()
    models = host.home.models
    for left in ("tiny/.staging", "tiny/.removed-7", ".removed-old/3"):
        (models / left / "deep").mkdir(parents=True)
        (models / left / "deep" / "file").write_text("x")
    (models / "tiny" / ".tmp-1234-current").symlink_to("9")
    (models / "tiny" / ".pending").symlink_to("3")
    for left in ("trust/.tmp-1-keyring.json", ".tmp-2-log.jsonl.head", "models/tiny/2/.tmp-3-a"):
        (host.home.root / left).write_text("[]")
    assert host.state() != before
    sweep_leftovers(host.home)
    finished = finish_removals(host.home, no_record)
    assert [(removal.name, removal.numbers) for removal in finished] == [
        ("old", (3,)),
        ("tiny", (7,)),
    ]
    assert host.state() == before


@pytest.mark.parametrize("current", [1, 3])
def test_102_a_generation_that_was_being_published_is_there_if_it_is_current(
    host: Host, current: int
) -> None:
    before = host.state()
    directory = host.home.models / "tiny"
    shutil.copytree(directory / "2", directory / "3")
    (directory / ".pending").symlink_to("3")
    swap_symlink(directory / "current", str(current))
    expected = ["1", "2", "3"] if current == 3 else ["1", "2"]
    assert [str(g.number) for g in generations(host.home, "tiny")] == expected
    make_current(host.home, "tiny", 2)
    assert names(host.home) == [*expected, "current"]
    if current == 1:
        assert host.state() == before


def test_99_what_cannot_be_written_down_for_want_of_room_makes_the_room(host: Host) -> None:
    seen = []

    def record(removal: Removal) -> None:
        seen.append([path for path in removal.hidden.rglob("*") if path.is_file()])
        if len(seen) == 1:
            raise NoSpaceError("full")

    assert remove(host.home, "tiny", None, record).numbers == (1, 2)
    assert (len(seen), len(seen[0]) > 4, seen[1]) == (2, True, [])
    assert [*host.home.models.iterdir()] == []


def test_a_removal_that_cannot_be_written_down_does_not_happen(host: Host) -> None:
    def refuse(_removal: Removal) -> None:
        raise HostError("no")

    before = host.state()
    for number in (1, None):
        with pytest.raises(HostError, match="no"):
            remove(host.home, "tiny", number, refuse)
        assert host.state() == before


def test_a_removed_model_is_gone_with_every_generation(host: Host) -> None:
    assert remove(host.home, "tiny", None, no_record).numbers == (1, 2)
    assert list(host.home.models.iterdir()) == []
    assert installed_names(host.home) == ()


@pytest.mark.parametrize("name", ["other", "../home", ".staging", "", "tiny/1"])
def test_a_name_that_is_not_installed_is_refused_with_those_that_are(host: Host, name: str) -> None:
    with pytest.raises(UsageError, match="is not installed; installed: tiny"):
        generations(host.home, name)


def test_a_number_that_is_not_there_is_refused_with_those_that_are(host: Host) -> None:
    with pytest.raises(UsageError, match="tiny has no generation 7; it has 1, 2"):
        find_generation(host.home, "tiny", 7)


@pytest.mark.parametrize("target", [None, "nowhere"])
def test_without_a_current_generation_a_rollback_is_proposed(
    host: Host, target: str | None
) -> None:
    link = host.home.models / "tiny" / "current"
    link.unlink()
    if target:
        link.symlink_to(target)
    with pytest.raises(HostError, match="no generation is current") as caught:
        find_generation(host.home, "tiny")
    assert caught.value.hint == "airpack rollback tiny"
