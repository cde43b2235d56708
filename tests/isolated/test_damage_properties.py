"""Whatever befalls a bundle on its way: named, repaired while the code can, never installed bad.

Each example is judged by :mod:`support.oracle`, which knows the true bytes and counts for itself.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, keyring_of, make_bundle, make_key
from support.hosts import NOW, Host
from support.mishaps import Trip, trips
from support.oracle import INDEX, SUMS, Build, Judgement, Medium, Named

from packager.cli.main import airpack
from packager.connected.packing.ticket import build_patch
from packager.connected.signing.keys import SigningKey
from packager.errors import (
    AirpackError,
    IntegrityError,
    MissingVolumeError,
    TrustError,
    UsageError,
)
from packager.format.ticket import encode_ticket, make_ticket, parse_ticket
from packager.isolated.media import open_media
from packager.isolated.patch import open_patch
from packager.isolated.recover import beyond_parity
from packager.isolated.repair import repair
from packager.isolated.request import Installation
from packager.isolated.trust_store import write_keyring
from packager.isolated.verify import Verification
from packager.progress import Silent
from packager.store.home import Home

TITLE = "tiny-1.0.0"
VOLUME_SIZE = 2 * CHUNK_SIZE
SIZES = {"tokens": 70_000, "model": 8 * CHUNK_SIZE + 4_321, "config": 9}
SMALL_FILES = {"setup.sh": b"exit 0\n", "LICENSE.txt": b"x"}
_ANY = {"deadline": None, "suppress_health_check": [*HealthCheck]}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, ...]:
    place = tmp_path_factory.mktemp("signers")
    return make_key(place / "one"), make_key(place / "two")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what counts here is bytes, and not their fsync."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "trip"
        return
    with TemporaryDirectory(dir=memory) as directory:
        yield Path(directory) / "trip"


@pytest.fixture(scope="session")
def builds(
    tmp_path_factory: pytest.TempPathFactory, keys: Sequence[SigningKey]
) -> list[tuple[Build, Build]]:
    """With parity of none to three, a build and a later one of the same name and version."""
    return [
        (_build(tmp_path_factory, keys, 1, parity), _build(tmp_path_factory, keys, 2, parity))
        for parity in range(4)
    ]


def _build(
    tmp_path_factory: pytest.TempPathFactory,
    keys: Sequence[SigningKey],
    sequence: int,
    parity: int,
) -> Build:
    draw = random.Random(sequence)
    files = {name: draw.randbytes(size) for name, size in SIZES.items()}
    made = make_bundle(
        tmp_path_factory.mktemp("built"), keys, sequence=sequence, files=files,
        volume_size=VOLUME_SIZE, parity=parity, extra=SMALL_FILES,
    )  # fmt: skip
    return Build.read(made, CHUNK_SIZE)


@dataclass(frozen=True)
class _Ended:
    """How a command ended, and what it gave."""

    exit_code: int
    stdout: str


class Scene:
    """A trip's media on the disk, and a host with nothing installed before them."""

    def __init__(self, trip: Trip, place: Path, keys: Sequence[SigningKey]) -> None:
        self.trip = trip
        self.place = place
        self.keys = keys
        self.directories = trip.write(place, TITLE)
        self.cli = self.host("cli")

    def host(self, name: str) -> Host:
        """A host that trusts the signers and has nothing installed."""
        ring = keyring_of(*self.keys)
        home = Home(self.place / name)
        shutil.rmtree(home.root, ignore_errors=True)
        write_keyring(home, ring)
        return Host(home, ring)

    def now(self, *more: Path) -> list[Medium]:
        """What is on the media at this moment."""
        return [
            {path.name: path.read_bytes() for path in directory.iterdir()}
            for directory in (*self.directories, *more)
        ]


def check(trip: Trip, place: Path, keys: Sequence[SigningKey]) -> None:
    """All that must hold of one trip."""
    shutil.rmtree(place, ignore_errors=True)
    scene = Scene(trip, place, keys)
    ours, others = (Judgement(build, trip.media) for build in (trip.build, trip.other))
    try:
        found = scene.host("reader").verify(*scene.directories)
    except AirpackError as error:
        assert not ours.must_be_believed or others.may_be_believed
        _check_disbelief(scene, error)
        return
    truth = ours if found.verified.digest.hex == trip.build.digest else others
    assert found.verified.digest.hex == truth.build.digest
    assert truth.must_be_believed
    _check_findings(scene, found, truth)
    _check_command(scene, found, truth)
    _check_install(scene, truth)
    _check_repair(scene, found, truth)
    _check_repair_in_place(scene, found, truth)
    if truth.hopeless:
        _check_ticket(scene, found, truth)


def _check_disbelief(scene: Scene, error: AirpackError) -> None:
    """A bundle that cannot be believed: refused in the same class by all, and nothing is done."""
    assert isinstance(error, (IntegrityError, TrustError, MissingVolumeError, UsageError))
    marks = {copy for name in (SUMS, INDEX) for copy in (name, f"spare.{name}")}
    bare = any(not marks & medium.keys() for medium in scene.trip.media)
    assert isinstance(error, UsageError) == bare
    assert _command(scene, "verify").exit_code == error.exit_code
    host = scene.host("disbelieving")
    before = host.state()
    with pytest.raises(type(error)):
        host.install(*scene.directories)
    assert host.state() == before
    assert scene.now() == scene.trip.media


def _check_findings(scene: Scene, found: Verification, truth: Judgement) -> None:
    """Each thing that is wrong, where it is and what it touches; and nothing else."""
    places = {directory: number for number, directory in enumerate(scene.directories)}
    damage = {
        Named(places[d.medium], d.volume, d.chunk, d.offset, d.size, d.files) for d in found.damage
    }
    assert damage == truth.damage
    assert len(damage) == len(found.damage)
    assert {*found.missing} == truth.missing
    assert {(places[path.parent], path.name) for path in found.strangers} == truth.strangers
    assert found.ok == truth.ok
    assert {*found.lost} == {piece.number for piece in truth.lost}
    assert found.repairable == truth.repairable
    states = {
        (v.name, None if v.medium is None else places[v.medium], v.state) for v in found.volumes
    }
    assert states == {
        (name, number, truth.state(name, number))
        for name in truth.build.volumes
        for number in _places(name, truth.media)
    }


def _places(name: str, media: Sequence[Medium]) -> Iterator[int | None]:
    there = [number for number, medium in enumerate(media) if name in medium]
    yield from there or [None]


def _check_command(scene: Scene, found: Verification, truth: Judgement) -> None:
    """The command says the same, in the class of the gravest."""
    done = _command(scene, "verify")
    document = json.loads(done.stdout)
    damage = {
        (d["medium"], d["volume"], d["chunk"], d["offset"], d["size"], tuple(d["files"]))
        for d in document["damage"]
    }
    assert damage == {
        (str(d.medium), d.volume, d.chunk, d.offset, d.size, d.files) for d in found.damage
    }
    assert (document["ok"], document["repairable"]) == (found.ok, found.repairable)
    if truth.damage or truth.strangers:
        assert done.exit_code == IntegrityError.exit_code
    else:
        assert done.exit_code == (MissingVolumeError.exit_code if truth.missing else 0)


def _command(scene: Scene, verb: str) -> _Ended:
    words = [verb, "--json", "--no-input", *map(str, scene.directories)]
    done = CliRunner(env={"AIRPACK_HOME": str(scene.cli.home.root)}).invoke(airpack, words)
    refused = done.exception if isinstance(done.exception, AirpackError) else None
    return _Ended(refused.exit_code if refused else done.exit_code, done.stdout)


def _check_install(scene: Scene, truth: Judgement, *more: Path) -> None:
    """Files as they were, or an error of the right class and a store without a trace."""
    host = scene.host("installing")
    before = host.state()
    needed = {path for path in truth.build.members if path.startswith("models/")}
    lost = [piece for piece in truth.hopeless if needed.intersection(piece.files)]
    try:
        done = host.install(*scene.directories, *more)
    except AirpackError as error:
        assert host.state() == before
        _check_refusal(error, truth)
    else:
        assert not lost
        assert not truth.strangers
        _check_installed(done, truth)
    assert scene.now() == truth.media[: len(scene.directories)]


def _check_installed(done: Installation, truth: Judgement) -> None:
    prefix = "models/tiny/"
    for path, (_, data) in truth.build.members.items():
        assert (done.path / path.removeprefix(prefix)).read_bytes() == data


def _check_refusal(error: AirpackError, truth: Judgement) -> None:
    """Only for what is wrong, and missing things are called missing and bad ones bad."""
    # A volume with bytes behind its end is refused, unless another medium has it as it should be.
    too_long = {named.volume for named in truth.damage if named.chunk is None} & truth.to_mend
    assert truth.hopeless or truth.strangers or too_long
    bad = any(named.volume in truth.build.volumes for named in truth.damage)
    kinds: list[type[AirpackError]] = []
    if bad or truth.strangers:
        kinds.append(IntegrityError)
    if truth.missing.intersection(truth.build.volumes):
        kinds.append(MissingVolumeError)
    assert isinstance(error, tuple(kinds))


def _check_repair(scene: Scene, found: Verification, truth: Judgement) -> None:
    """To another place: one more medium there, with which all is good; or nothing at all."""
    to = scene.place / "mended"
    media = open_media(scene.directories)
    if truth.hopeless:
        with pytest.raises((IntegrityError, MissingVolumeError)):
            repair(found, media, to, Silent())
        assert not to.exists()
        return
    done = repair(found, media, to, Silent())
    assert {path.name for path in done.volumes} == truth.to_mend
    assert scene.now() == truth.media
    if not (done.volumes or done.small_files):
        assert not to.exists()
        assert truth.missing | {d.volume for d in truth.damage} <= {
            name for name in truth.build.files if truth.is_good(name) or name in truth.beyond
        }
        return
    assert {*done.beyond} == truth.beyond
    mended = Judgement(truth.build, scene.now(to / TITLE))
    made = {name: truth.build.files[name] for name in truth.to_mend | truth.small - truth.beyond}
    assert mended.media[-1] == made
    _check_install(scene, mended, to / TITLE)


def _check_repair_in_place(scene: Scene, found: Verification, truth: Judgement) -> None:
    """In place: every file as it was built, wherever it belongs; strangers are left alone."""
    media = open_media(scene.directories)
    if truth.hopeless:
        with pytest.raises((IntegrityError, MissingVolumeError)):
            repair(found, media, None, Silent())
        assert scene.now() == truth.media
        return
    done = repair(found, media, None, Silent())
    after = Judgement(truth.build, scene.now())
    assert {*done.beyond} == truth.beyond
    assert {named.volume for named in after.damage} | after.missing <= truth.beyond
    assert not after.to_mend
    for before, now in zip(truth.media, after.media, strict=True):
        assert now.keys() - before.keys() <= truth.missing | truth.small
        assert before.keys() <= now.keys()
        changed = {name for name in before if before[name] != now[name]}
        assert all(now[name] == truth.build.files[name] for name in changed)


def _check_ticket(scene: Scene, found: Verification, truth: Judgement) -> None:
    """What is beyond parity is asked for, no chunk more, and what comes back makes all good."""
    verified, media = found.verified, open_media(scene.directories)
    chunks = beyond_parity(verified.bundle, found.lost)
    assert len(chunks) == truth.to_ask_for
    wanted = make_ticket(verified.bundle, verified.digest, chunks, found.lost_files)
    ticket = parse_ticket(encode_ticket(wanted).encode(), "ticket")
    made = build_patch(ticket, truth.build.directory, scene.place, scene.keys, Silent())
    patch = open_patch(made, verified, keyring_of(*scene.keys), now=NOW)
    done = repair(found, media, None, Silent(), [patch])
    after = Judgement(truth.build, scene.now())
    # Signatures are in no sums, so there is no asking for them.
    assert not {*done.beyond} & {*truth.build.listed}
    assert {named.volume for named in after.damage} | after.missing <= {*done.beyond}
    assert not after.to_mend
    _check_install(scene, after)


@settings(max_examples=300, **_ANY)
@given(st.data())
def test_whatever_happens_on_the_way_is_named_repaired_or_refused(
    builds: list[tuple[Build, Build]],
    keys: Sequence[SigningKey],
    place: Path,
    data: st.DataObject,
) -> None:
    check(data.draw(trips(builds)), place, keys)


@pytest.mark.sweep
@settings(max_examples=3000, **_ANY)
@given(st.data())
def test_sweep_of_what_happens_on_the_way(
    builds: list[tuple[Build, Build]],
    keys: Sequence[SigningKey],
    place: Path,
    data: st.DataObject,
) -> None:
    check(data.draw(trips(builds)), place, keys)
