"""Damage beyond parity: asked for in a ticket, carried in a patch, made good."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle
from support.hosts import Host
from support.tickets import asked, contents, made_patch, mend
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError, MissingVolumeError
from packager.format.digest import Digest

MODEL = weights(random.Random(9).randbytes(15 * CHUNK_SIZE + 12_345))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> dict[int, Path]:
    """Bundles as they were built, in volumes of two chunks, by their parity volumes."""
    return {
        parity: make_bundle(
            tmp_path_factory.mktemp(f"built{parity}"),
            [key],
            files={"model.safetensors": MODEL},
            volume_size=2 * CHUNK_SIZE,
            parity=parity,
            extra={"notes.txt": b"hello"},
        )
        for parity in (0, 2)
    }


@pytest.fixture
def bundle(built: dict[int, Path], tmp_path: Path) -> Path:
    """The bundle without parity, on a medium."""
    return Path(shutil.copytree(built[0], tmp_path / "medium" / built[0].name))


@pytest.fixture
def protected(built: dict[int, Path], tmp_path: Path) -> Path:
    """The bundle with two parity volumes, on a medium."""
    return Path(shutil.copytree(built[2], tmp_path / "medium" / built[2].name))


def installed_model(host: Host, *media: Path) -> bytes:
    return (host.install(*media).path / "original" / "model.safetensors").read_bytes()


def test_without_parity_bad_chunks_are_asked_for_and_mended(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    (bundle / "payload.00005").unlink()
    with (bundle / "payload.00008").open("r+b") as stream:  # the last, which is short
        stream.truncate(CHUNK_SIZE + 3)
    assert asked(host, bundle) == (2, 8, 9, 15)
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key)
    size = sum(path.stat().st_size for path in patch.iterdir())
    assert size < 3 * CHUNK_SIZE + CHUNK_SIZE // 2  # a short chunk, and a few small files

    assert mend(host, bundle, patch).chunks == 4

    assert contents(bundle) == contents(built[0])
    assert installed_model(host, bundle) == MODEL


def test_beyond_parity_only_the_excess_is_asked_for(
    host: Host, protected: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    for name in ("payload.00003", "payload.00006", "parity.00001", "parity.00002"):
        (protected / name).unlink()
    flip_bit(protected / "payload.00001", 3)
    assert asked(host, protected) == (0, 4, 5, 10, 11)  # of nine that are lost
    patch = made_patch(host, protected, built[2], tmp_path / "out", key)
    mend(host, protected, patch)
    assert contents(protected) == contents(built[2])
    assert installed_model(host, protected) == MODEL


def test_a_repair_to_another_place_leaves_the_medium_alone(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    before = contents(bundle)
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key)
    mend(host, bundle, patch, to=tmp_path / "more")
    assert contents(bundle) == before
    assert installed_model(host, bundle, tmp_path / "more") == MODEL


def test_a_partial_patch_changes_nothing_and_what_is_left_is_named(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    for path in sorted(bundle.glob("payload.*"))[1:5]:
        flip_bit(path, 0)
    before = contents(bundle)
    first = made_patch(host, bundle, built[0], tmp_path / "out", key, 2, 6)
    with pytest.raises(IntegrityError, match=r"2 chunk.* of payload\.00003, .* needed: 4 8$"):
        mend(host, bundle, first)
    assert contents(bundle) == before
    second = made_patch(host, bundle, built[0], tmp_path / "out", key, 4, 8)
    mend(host, bundle, first, second)
    assert contents(bundle) == contents(built[0])


def test_a_small_file_that_is_lost_is_asked_for_and_put_back(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    (bundle / "notes.txt").unlink()
    flip_bit(bundle / "payload.00002", 5)
    found = host.verify(bundle)
    assert not found.repairable
    assert [*found.lost_files.values()] == [Digest.of(b"hello")]
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key)
    done = mend(host, bundle, patch)
    assert (done.chunks, done.small_files, done.beyond) == (1, (bundle / "notes.txt",), ())
    assert contents(bundle) == contents(built[0])


def test_what_parity_and_spare_copies_give_back_is_not_asked_for(
    host: Host, protected: Path
) -> None:
    (protected / "bundle.json").unlink()
    (protected / "payload.00003").unlink()
    assert asked(host, protected) == ()
    assert host.verify(protected).lost_files == {}


@pytest.mark.parametrize("lost", ["chunk", "volume", "all"])
def test_install_takes_the_patch_and_leaves_the_medium_alone(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey, lost: str
) -> None:
    volumes = sorted(bundle.glob("payload.*"))
    if lost == "chunk":
        flip_bit(volumes[1], 5)
    for volume in {"volume": volumes[1:2], "all": volumes}.get(lost, ()):
        volume.unlink()
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key)
    before = contents(bundle)
    done = host.install(bundle, patches=(patch,))
    assert (done.path / "original" / "model.safetensors").read_bytes() == MODEL
    assert contents(bundle) == before


def test_install_with_a_patch_that_is_not_enough_changes_nothing(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key, 2)
    (bundle / "payload.00002").unlink()
    before = host.state()
    with pytest.raises(MissingVolumeError, match=r"payload\.00002: missing"):
        host.install(bundle, patches=(patch,))
    assert host.state() == before


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_lost_comes_back_with_a_patch(
    host: Host, built: dict[int, Path], tmp_path: Path, key: SigningKey, draw: st.DataObject
) -> None:
    """Any volumes, wholly or in part, of a bundle with parity or without."""
    pristine = built[draw.draw(st.sampled_from([0, 2]))]
    for leftover in ("case", "out"):
        shutil.rmtree(tmp_path / leftover, ignore_errors=True)
    bundle = Path(shutil.copytree(pristine, tmp_path / "case" / pristine.name))
    paths = [*sorted(bundle.glob("payload.*")), *sorted(bundle.glob("parity.*"))]
    for path in draw.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=8, unique=True)):
        if draw.draw(st.booleans()):
            path.unlink()
        else:
            flip_bit(path, draw.draw(st.integers(0, path.stat().st_size - 1)))
    wanted = asked(host, bundle)
    patches = [made_patch(host, bundle, pristine, tmp_path / "out", key)] if wanted else []
    for patch in patches:  # and not a single chunk of them could have been spared
        spare = draw.draw(st.sampled_from(wanted))
        fewer = [chunk for chunk in wanted if chunk != spare]
        few = [made_patch(host, bundle, pristine, tmp_path / "out", key, *fewer)] if fewer else []
        assert patch not in few
        with pytest.raises((IntegrityError, MissingVolumeError), match=f"needed: {spare}$"):
            mend(host, bundle, *few)
    mend(host, bundle, *patches)
    assert contents(bundle) == contents(pristine)
