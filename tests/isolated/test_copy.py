"""Copies to one medium and to several: what is whole, what is refused, what goes on later."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle
from support.disks import read_only
from support.hosts import Host, child_env, in_small_disk, strace
from support.tiny_source import weights
from support.watching import WatchedTask, Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import HostError, IntegrityError, MissingVolumeError, UsageError
from packager.isolated.copy import copy_share
from packager.isolated.source import open_source
from packager.isolated.spread import Plan, plan_copy
from packager.progress import Progress, Silent

MODEL = weights(random.Random(3).randbytes(90 * CHUNK_SIZE + 777))
VOLUME_SIZE = 28 * CHUNK_SIZE  # more than one read
COPY = """
import sys
from pathlib import Path
from support.watching import Watching
from packager.errors import AirpackError
from packager.isolated.copy import copy_share
from packager.isolated.source import open_source
from packager.isolated.spread import plan_copy
source = open_source(Path(sys.argv[1]))
targets = [Path(word) for word in sys.argv[2:]]
"""
COPY_ONCE = (
    COPY
    + """
try:
    plan = plan_copy(source, targets, source.volume_names)
    for share in plan.shares:
        copy_share(source, share, Watching(), verify=True)
except AirpackError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""
)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """Four volumes of 28 chunks at most, and one of parity; and a file of some size."""
    return make_bundle(
        tmp_path_factory.mktemp("pristine"),
        [key],
        files={"model.safetensors": MODEL, "config.json": b"{}\n"},
        volume_size=VOLUME_SIZE,
        parity=1,
        extra={"some.whl": random.Random(4).randbytes(1_234_567)},
    )


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "built" / pristine.name))


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


def copy(
    bundle: Path, *targets: Path, verify: bool = False, progress: Progress | None = None
) -> Plan:
    source = open_source(bundle)
    plan = plan_copy(source, targets, source.volume_names)
    for share in plan.shares:
        copy_share(source, share, progress or Silent(), verify=verify)
    return plan


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def copy_process(
    bundle: Path, *targets: Path, before: list[str]
) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", COPY_ONCE, str(bundle), *map(str, targets)]
    return subprocess.run(
        command, env=child_env(), capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class Meddling(Watching):
    """Does something when the task whose label starts so begins."""

    label: str = ""
    act: Callable[[], object] = field(default=lambda: None)

    @contextmanager
    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> Iterator[WatchedTask]:
        if label.startswith(self.label):
            self.act()
        with super().task(label, total, unit=unit, done=done) as task:
            yield task


def test_a_copy_is_the_bundle_and_nothing_else(
    host: Host, bundle: Path, stick: Path, tmp_path: Path
) -> None:
    watching = Watching()
    plan = copy(bundle, stick, stick / "..", verify=True, progress=watching)
    assert plan.left == ()
    assert content(stick / bundle.name) == content(bundle)
    assert host.verify(stick).ok
    second = content(tmp_path / bundle.name)  # the other target has the small files
    assert second.keys() == {n for n in content(bundle) if not n.startswith(("payload", "parity"))}
    assert [task.done for task in watching.tasks] == [task.total for task in watching.tasks]


def test_what_is_there_is_read_and_not_written_again(bundle: Path, stick: Path) -> None:
    copy(bundle, stick)
    before = {path.name: path.stat() for path in (stick / bundle.name).iterdir()}
    watching = Watching()
    copy(bundle, stick, verify=True, progress=watching)
    assert {
        path.name: path.stat() for path in (stick / bundle.name).iterdir()
    }.keys() == before.keys()
    for path in (stick / bundle.name).iterdir():
        assert path.stat().st_ino == before[path.name].st_ino
    assert [(task.done, task.total) for task in watching.tasks][1] == (0, 0)


def test_damage_on_the_medium_is_noticed_and_copied_over(bundle: Path, stick: Path) -> None:
    copy(bundle, stick)
    made = stick / bundle.name
    flip_bit(made / "payload.00002", 3 * CHUNK_SIZE + 1)
    flip_bit(made / "some.whl", 7)
    (made / "payload.00003").write_bytes((bundle / "payload.00003").read_bytes()[:-5])
    with (made / "payload.00004").open("ab") as stream:
        stream.write(b"more")
    watching = Watching()
    copy(bundle, stick, progress=watching)
    assert content(made) == content(bundle)
    assert [note.split(":")[0].rpartition(".")[2] for note in watching.notes] == [
        "00002", "00003", "00004",
    ]  # fmt: skip


def test_40_a_damaged_volume_does_not_spread(bundle: Path, stick: Path, pristine: Path) -> None:
    flip_bit(bundle / "payload.00002", 4 * CHUNK_SIZE)
    with pytest.raises(IntegrityError, match=r"payload\.00002: chunk 32 \(from byte 262144\)"):
        copy(bundle, stick)
    made = stick / bundle.name
    assert not (made / "payload.00002").exists()
    partial = (made / ".tmp-payload.00002").read_bytes()
    assert partial == (pristine / "payload.00002").read_bytes()[: 4 * CHUNK_SIZE]
    flip_bit(bundle / "payload.00002", 4 * CHUNK_SIZE)
    copy(bundle, stick)
    assert content(made) == content(pristine)


@pytest.mark.parametrize("name", ["some.whl", "bundle.json", "spare.bundle.json", "SHA256SUMS"])
def test_a_damaged_small_file_is_refused_before_anything_is_written(
    bundle: Path, stick: Path, name: str
) -> None:
    flip_bit(bundle / name, 70)
    with pytest.raises(IntegrityError):
        copy(bundle, stick)
    assert list(stick.iterdir()) == []


@pytest.mark.parametrize("name", ["payload.00003", "some.whl"])
def test_48_a_source_that_lacks_a_file_is_refused(bundle: Path, stick: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(MissingVolumeError, match=f"{name} missing"):
        copy(bundle, stick)
    assert list(stick.iterdir()) == []


def test_a_stranger_beside_the_bundle_stays_behind(bundle: Path, stick: Path) -> None:
    (bundle / "autorun.inf").touch()
    copy(bundle, stick)
    assert open_source(bundle).strangers == (bundle / "autorun.inf",)
    assert not (stick / bundle.name / "autorun.inf").exists()


def test_the_bundle_is_not_copied_onto_or_into_itself(bundle: Path, tmp_path: Path) -> None:
    before = content(bundle)
    alias = tmp_path / "alias"
    alias.symlink_to(bundle.parent)
    for target in (bundle.parent, alias, bundle):
        with pytest.raises(UsageError, match="is the bundle to copy, or inside it"):
            copy(bundle, target)
    assert content(bundle) == before


def test_a_target_that_is_not_there_is_not_made(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        copy(bundle, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_another_build_of_that_version_is_not_mixed_in(
    bundle: Path, stick: Path, key: SigningKey
) -> None:
    other = make_bundle(stick, [key])
    before = content(other)
    with pytest.raises(UsageError, match="holds another bundle"):
        copy(bundle, stick)
    assert content(other) == before


def test_links_that_lie_in_wait_on_the_medium_are_not_followed(
    bundle: Path, stick: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    made = stick / bundle.name
    made.symlink_to(victim)
    with pytest.raises(HostError, match="not a directory"):
        copy(bundle, stick)
    made.unlink()
    made.mkdir()
    for name in ("payload.00001", ".tmp-payload.00002", ".tmp-some.whl", "bundle.json"):
        (made / name).symlink_to(victim / "file")
    os.mkfifo(made / ".tmp-payload.00003")
    copy(bundle, stick)
    assert list(victim.iterdir()) == []
    assert content(made) == content(bundle)


def test_what_the_medium_does_not_give_back_is_noticed_and_removed(
    bundle: Path, stick: Path
) -> None:
    made = stick / bundle.name
    spoil = Meddling(label="reading back", act=lambda: flip_bit(made / "payload.00002", 99))
    with pytest.raises(IntegrityError, match=r"payload\.00002: the medium does not give back"):
        copy(bundle, stick, verify=True, progress=spoil)
    assert not (made / "payload.00002").exists()
    copy(bundle, stick, verify=True)
    assert content(made) == content(bundle)


@pytest.mark.parametrize(
    ("call", "when"),
    [("pwrite64", 3), ("pwrite64", 12), ("pwrite64", 14), ("fsync", 20), ("rename", 11)],
)
def test_a_killed_copy_goes_on_at_the_chunk(
    bundle: Path, stick: Path, pristine: Path, call: str, when: int
) -> None:
    front = strace("-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={when}")
    assert copy_process(bundle, stick, before=front).returncode != 0
    made = stick / bundle.name
    for path in made.iterdir():  # what has its name is whole
        assert path.name.startswith(".tmp-") or path.read_bytes() == content(pristine)[path.name]
    begun = [path for path in made.glob(".tmp-payload.*") if path.stat().st_size]
    assert len(begun) == (when > 3)
    for path in begun:  # were its first bytes copied again, they would be refused
        flip_bit(bundle / path.name.removeprefix(".tmp-"), 0)
    copy(bundle, stick)
    assert content(made) == content(pristine)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("pwrite64:when=13", "ENOSPC", "NoSpaceError"),
        ("pwrite64:when=13", "EFBIG", "NoSpaceError"),
        ("fsync:when=14", "EIO", "IntegrityError"),
        ("rename:when=11", "EROFS", "HostError"),
    ],
)
def test_what_the_system_refuses_is_named_and_the_next_copy_goes_on(
    bundle: Path, stick: Path, call: str, error: str, said: str
) -> None:
    name, _, when = call.partition(":")
    front = strace("-o", os.devnull, "-e", f"inject={name}:error={error}:{when}")
    done = copy_process(bundle, stick, before=front)
    assert done.stderr.startswith(f"{said}: {stick}"), done.stderr
    copy(bundle, stick)
    assert content(stick / bundle.name) == content(bundle)


FILLING = (
    COPY
    + """
class Filling(Watching):
    def task(self, label, total, **options):
        with open(targets[0] / "fill", "wb", buffering=0) as stream:
            try:
                while stream.write(bytes(4096)): pass
            except OSError: pass
            stream.truncate(stream.tell() - 2_800_000)
        return super().task(label, total)
def copy(progress):
    for share in plan_copy(source, targets, source.volume_names).shares:
        copy_share(source, share, progress, verify=True)
try:
    copy(Filling())
except AirpackError as error:
    print(type(error).__name__, error.message)
print(*sorted(path.name for path in (targets[0] / source.bundle.title).glob("*p*.0000?")))
(targets[0] / "fill").unlink()
copy(Watching())
print(*sorted(path.name for path in (targets[0] / source.bundle.title).glob("*p*.0000?")))
"""
)


def test_99_a_disk_that_fills_up_meanwhile_is_named_and_the_next_copy_goes_on(
    bundle: Path, stick: Path
) -> None:
    script = f'{sys.executable} -c \'{FILLING}\' "{bundle}" "$PLACE"'
    done = in_small_disk(stick, "24m", script)
    said, partly, whole = done.stdout.splitlines()
    assert said == f"NoSpaceError {stick}/{bundle.name}/.tmp-payload.00001: no space left"
    assert partly == ".tmp-payload.00001"
    assert whole == "parity.00001 payload.00001 payload.00002 payload.00003 payload.00004"


def test_101_a_read_only_medium_is_refused_before_anything(bundle: Path, stick: Path) -> None:
    words = (sys.executable, "-c", COPY_ONCE, bundle, stick)
    done = in_small_disk(stick, "16m", read_only(*words) + '; ls -A "$PLACE"')
    assert done.stderr == f"HostError: {stick}: is read-only\n"
    assert done.stdout == ""


def test_100_a_medium_too_small_for_the_small_files_is_refused_before_anything(
    bundle: Path, stick: Path
) -> None:
    script = f'{sys.executable} -c \'{COPY_ONCE}\' "{bundle}" "$PLACE"; ls -A "$PLACE"'
    done = in_small_disk(stick, "1m", script)
    assert done.stderr.startswith(f"NoSpaceError: {stick}: ")
    assert "needed for the small files alone" in done.stderr
    assert done.stdout == ""


SPREADING = """
import random, subprocess, sys
from pathlib import Path
from packager.isolated.copy import copy_share
from packager.isolated.source import open_source
from packager.isolated.spread import plan_copy
from packager.isolated.trust_store import read_keyring
from packager.progress import Silent
from packager.store.home import Home
from support.hosts import Host
place, home, bundle = map(Path, sys.argv[1:])
host = Host(Home(home), read_keyring(Home(home)))
source = open_source(bundle)
chance = random.Random(11)
for case in range(8):
    sizes = [chance.randint(4200, 7200) for _ in range(chance.choice([2, 3]))]
    media = [place / f"{case}-{number}" for number in range(len(sizes))]
    for medium, size in zip(media, sizes):
        medium.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"mode=755,size={size}k", "tmpfs", str(medium)]
        subprocess.run(mount, check=True)
    plan = plan_copy(source, media, source.volume_names)
    for share in plan.shares:
        copy_share(source, share, Silent(), verify=True)
    chance.shuffle(media)
    found = host.verify(*media)
    places = {state.name: state.medium for state in found.volumes}
    for share in plan.shares:
        assert all(places[volume.name] == share.directory for volume in share.volumes)
    assert sorted(found.missing) == sorted(plan.left)
    assert not found.damage and not found.strangers
    if len(plan.left) <= 1:
        model = host.install(*media).path / "original" / "model.safetensors"
        print("installed", len(plan.left), model.stat().st_size)
"""


def test_a_spread_bundle_is_verified_and_installed_from_its_media_in_any_order(
    host: Host, bundle: Path, stick: Path
) -> None:
    script = f'{sys.executable} -c \'{SPREADING}\' "$PLACE" "{host.home.root}" "{bundle}"'
    done = in_small_disk(stick, "64m", script)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"installed"}
    assert {line.split()[2] for line in lines} == {str(len(MODEL))}
    assert len(lines) >= 3
