"""Lost and damaged volumes, made good from parity: named, rebuilt, installed, never guessed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle
from support.hosts import Host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import (
    HostError,
    IntegrityError,
    MissingVolumeError,
    UsageError,
)
from packager.isolated.media import open_media
from packager.isolated.repair import Repair, repair
from packager.progress import Silent

MODEL = weights(random.Random(7).randbytes(30 * CHUNK_SIZE + 12_345))
PARITY = 2


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """Volumes of two chunks, and two of parity."""
    return make_bundle(
        tmp_path_factory.mktemp("pristine"),
        [key],
        files={"model.safetensors": MODEL, "config.json": b"{}\n"},
        volume_size=2 * CHUNK_SIZE,
        parity=PARITY,
    )


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "medium" / pristine.name))


def volumes(bundle: Path) -> list[Path]:
    """The volumes of both kinds, in order."""
    return [*sorted(bundle.glob("payload.*")), *sorted(bundle.glob("parity.*"))]


def mend(host: Host, bundle: Path, to: Path | None = None) -> Repair:
    return repair(host.verify(bundle), open_media([bundle]), to, Silent())


def same(bundle: Path, pristine: Path) -> bool:
    ours, theirs = ({p.name: p.read_bytes() for p in b.iterdir()} for b in (bundle, pristine))
    return ours == theirs


def installed_model(host: Host, *media: Path) -> bytes:
    return (host.install(*media).path / "original" / "model.safetensors").read_bytes()


def test_there_are_about_twenty_volumes_where_parity_is_asked_for_and_no_size(
    tmp_path: Path, key: SigningKey
) -> None:
    made = make_bundle(tmp_path, [key], files={"model": bytes(200 * CHUNK_SIZE)}, parity=1)
    assert 18 <= len([*made.glob("payload.*")]) <= 20
    assert [path.name for path in made.glob("parity.*")] == ["parity.00001"]


def test_what_is_whole_needs_no_repair(host: Host, bundle: Path, pristine: Path) -> None:
    assert host.verify(bundle).ok
    assert not host.verify(bundle).repairable
    assert mend(host, bundle) == Repair((), 0)
    assert same(bundle, pristine)


def test_damage_within_the_distance_is_named_and_repairable(host: Host, bundle: Path) -> None:
    flip_bit(bundle / "payload.00003", CHUNK_SIZE + 5)
    (bundle / "parity.00002").unlink()
    found = host.verify(bundle)
    assert not found.ok
    assert found.repairable
    states = {state.name: state.state for state in found.volumes if state.state != "good"}
    assert states == {"payload.00003": "repairable", "parity.00002": "repairable"}
    [damage] = found.damage
    assert (damage.chunk, damage.offset, damage.size) == (5, CHUNK_SIZE, CHUNK_SIZE)
    assert damage.files == ("models/tiny/original/model.safetensors",)
    assert found.missing == ("parity.00002",)


def test_two_lost_volumes_are_rebuilt_in_place(host: Host, bundle: Path, pristine: Path) -> None:
    (bundle / "payload.00001").unlink()
    (bundle / "payload.00016").unlink()  # the last one, which is short
    done = mend(host, bundle)
    assert {path.name for path in done.volumes} == {"payload.00001", "payload.00016"}
    assert same(bundle, pristine)


def test_only_bad_chunks_are_written_in_place(host: Host, bundle: Path, pristine: Path) -> None:
    flip_bit(bundle / "payload.00002", 7)
    with (bundle / "payload.00004").open("ab") as stream:
        stream.write(b"behind the end")
    assert mend(host, bundle).chunks == 1
    assert same(bundle, pristine)


def test_repair_to_another_place_leaves_the_source_alone_and_makes_a_medium(
    host: Host, bundle: Path, pristine: Path, tmp_path: Path
) -> None:
    flip_bit(bundle / "payload.00002", 7)
    (bundle / "payload.00005").unlink()
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    mend(host, bundle, tmp_path / "more")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    made = tmp_path / "more" / bundle.name
    for name in ("payload.00002", "payload.00005"):
        assert (made / name).read_bytes() == (pristine / name).read_bytes()
    assert installed_model(host, bundle, made) == MODEL


def test_install_rebuilds_by_itself_and_leaves_the_medium_alone(host: Host, bundle: Path) -> None:
    for path in volumes(bundle)[:2]:
        path.unlink()
    before = {path.name for path in bundle.iterdir()}
    assert installed_model(host, bundle) == MODEL
    assert {path.name for path in bundle.iterdir()} == before


def test_a_good_copy_on_another_medium_serves_without_parity(
    host: Host, tmp_path: Path, key: SigningKey
) -> None:
    first = make_bundle(tmp_path / "a", [key], files={"model.safetensors": MODEL})
    second = Path(shutil.copytree(first, tmp_path / "b" / first.name))
    flip_bit(first / "payload.00001", 70_000)
    flip_bit(second / "payload.00001", 700_000)
    assert host.verify(first, second).repairable
    assert installed_model(host, first, second) == MODEL


def test_loss_beyond_the_distance_is_refused_and_changes_nothing(
    host: Host, bundle: Path, tmp_path: Path
) -> None:
    for path in volumes(bundle)[3:6]:
        path.unlink()
    before = {path.name for path in bundle.iterdir()}
    assert not host.verify(bundle).repairable
    with pytest.raises(MissingVolumeError, match=r"payload\.00004, payload\.00005, payload\.00006"):
        mend(host, bundle, tmp_path / "more")
    with pytest.raises(MissingVolumeError):
        host.install(bundle)
    assert {path.name for path in bundle.iterdir()} == before
    assert not (tmp_path / "more").exists()


def test_three_bad_chunks_in_one_stripe_are_beyond_help_and_the_rest_is_not(
    host: Host, bundle: Path
) -> None:
    for path in volumes(bundle)[:3]:
        flip_bit(path, 0)
    flip_bit(bundle / "payload.00009", CHUNK_SIZE)
    found = host.verify(bundle)
    assert not found.repairable
    states = {state.name: state.state for state in found.volumes if state.state != "good"}
    assert states == {
        "payload.00001": "bad", "payload.00002": "bad", "payload.00003": "bad",
        "payload.00009": "repairable",
    }  # fmt: skip
    with pytest.raises(IntegrityError, match="3 chunk"):
        mend(host, bundle)


def test_each_bad_copy_is_mended_in_place(
    host: Host, tmp_path: Path, pristine: Path, bundle: Path
) -> None:
    other = Path(shutil.copytree(pristine, tmp_path / "b" / pristine.name))
    flip_bit(bundle / "payload.00001", 0)
    flip_bit(other / "payload.00001", CHUNK_SIZE)
    flip_bit(other / "payload.00002", 7)  # a good copy is on the first
    with (other / "parity.00001").open("ab") as stream:
        stream.write(b"behind the end")
    done = repair(host.verify(bundle, other), open_media([bundle, other]), None, Silent())
    mended = [bundle / "payload.00001"]
    mended += [other / name for name in ("payload.00001", "payload.00002", "parity.00001")]
    assert (set(done.volumes), done.chunks) == (set(mended), 3)
    assert same(bundle, pristine)
    assert same(other, pristine)


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_no_file_gives_way_to_the_volume(
    host: Host, bundle: Path, pristine: Path, tmp_path: Path, kind: str
) -> None:
    path = bundle / "payload.00004"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "victim")
        (tmp_path / "victim").write_bytes(b"precious")
    mend(host, bundle)
    assert same(bundle, pristine)
    assert not (bundle / "payload.00004").is_symlink()
    assert kind == "directory" or (tmp_path / "victim").read_bytes() == b"precious"


def test_a_directory_with_things_in_it_is_left_alone(host: Host, bundle: Path) -> None:
    path = bundle / "payload.00004"
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("precious")
    flip_bit(bundle / "payload.00002", 7)
    before = (bundle / "payload.00002").read_bytes()
    with pytest.raises(HostError, match=f"{path}: a directory with things in it"):
        mend(host, bundle)
    assert (path / "mine").read_text() == "precious"
    assert (bundle / "payload.00002").read_bytes() == before


def test_to_does_not_overwrite_the_bundle_itself(host: Host, bundle: Path) -> None:
    flip_bit(bundle / "payload.00001", 7)
    bad = (bundle / "payload.00001").read_bytes()
    with pytest.raises(UsageError, match=f"{bundle}: is the bundle itself"):
        mend(host, bundle, bundle.parent)
    assert (bundle / "payload.00001").read_bytes() == bad


def test_a_link_in_the_way_of_the_new_file_is_not_followed(
    host: Host, bundle: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (bundle / "payload.00001").unlink()
    (bundle / ".tmp-payload.00001").symlink_to(victim)
    mend(host, bundle)
    assert victim.read_bytes() == b"precious"
    assert not (bundle / ".tmp-payload.00001").exists()


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_damage_is_repaired_or_refused_and_never_installed_otherwise(
    pristine: Path, host: Host, tmp_path: Path, draw: st.DataObject
) -> None:
    """Flip, cut, drop, swap, duplicate: up to four volumes of either kind."""
    bundle = tmp_path / "case" / pristine.name
    shutil.rmtree(tmp_path / "case", ignore_errors=True)
    shutil.copytree(pristine, bundle)
    paths = volumes(bundle)
    hit = draw.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4, unique=True))
    for path in hit:
        size = path.stat().st_size
        kind = draw.draw(st.sampled_from(["flip", "cut", "drop", "other"]))
        if kind == "flip":
            flip_bit(path, draw.draw(st.integers(0, size - 1)))
        elif kind == "cut":
            with path.open("r+b") as stream:
                stream.truncate(draw.draw(st.integers(0, size - 1)))
        elif kind == "drop":
            path.unlink()
        else:
            donor = pristine / draw.draw(st.sampled_from([p.name for p in paths if p != path]))
            path.write_bytes(donor.read_bytes()[:size].ljust(size, b"\0"))
    found = host.verify(bundle)
    assert not found.ok
    assert {entry.volume for entry in found.damage} | {*found.missing} == {p.name for p in hit}
    try:
        mend(host, bundle)
    except (IntegrityError, MissingVolumeError):
        assert not found.repairable
        assert len(hit) > PARITY
    else:
        assert same(bundle, pristine)
    assert found.repairable or len(hit) > PARITY
