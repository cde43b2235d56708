"""Damage beyond parity: asked for in a ticket, carried in a patch, made good."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, flip_bit, keyring_of, make_bundle, make_key, resign
from support.hosts import NOW, Host

from packager.connected.keys import SigningKey
from packager.connected.sign import sign_bundle
from packager.connected.ticket import build_patch
from packager.errors import (
    DigestMismatchError,
    IntegrityError,
    MalformedError,
    MissingVolumeError,
    TrailingDataError,
    TruncatedError,
    TrustError,
    UsageError,
)
from packager.format.patch import CHUNKS_NAME, PATCH_NAME
from packager.format.sums import SUMS_NAME
from packager.format.ticket import encode_ticket, make_ticket, parse_ticket
from packager.isolated.media import open_media
from packager.isolated.patch import open_patch, split_patches
from packager.isolated.recover import beyond_parity
from packager.isolated.repair import Repair, repair
from packager.isolated.verify import authenticate
from packager.progress import Silent

MODEL = random.Random(9).randbytes(15 * CHUNK_SIZE + 12_345)


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


def asked(host: Host, *media: Path) -> tuple[int, ...]:
    found = host.verify(*media)
    return beyond_parity(found.verified.bundle, found.lost)


def made_patch(
    host: Host, medium: Path, source: Path, output: Path, key: SigningKey, *only: int
) -> Path:
    """What the sender makes of the host's ticket, or of one for the chunks ``only``."""
    found = host.verify(medium)
    wanted = only or beyond_parity(found.verified.bundle, found.lost)
    text = encode_ticket(make_ticket(found.verified.bundle, found.verified.digest, wanted))
    return build_patch(parse_ticket(text.encode(), "t"), source, output, [key], Silent())


def mend(host: Host, medium: Path, *patches: Path, to: Path | None = None) -> Repair:
    media = open_media([medium])
    verified = authenticate(media, host.keyring, now=NOW)
    opened = [open_patch(patch, verified, host.keyring, now=NOW) for patch in patches]
    return repair(host.verify(medium), media, to, Silent(), opened)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


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


Spoil = Callable[[Path, SigningKey], None]


def _sign_anew(patch: Path, key: SigningKey) -> None:
    resign(patch, [key])


def _other_chunk(patch: Path, key: SigningKey) -> None:
    document = (patch / PATCH_NAME).read_bytes()
    (patch / PATCH_NAME).write_bytes(document.replace(b'"number":2', b'"number":3'))
    _sign_anew(patch, key)


def _far_chunk(patch: Path, key: SigningKey) -> None:
    document = (patch / PATCH_NAME).read_bytes()
    (patch / PATCH_NAME).write_bytes(document.replace(b'"number":2', b'"number":200'))
    _sign_anew(patch, key)


def _by_a_stranger(patch: Path, key: SigningKey) -> None:
    _sign_anew(patch, make_key(patch.parent / "stranger"))


def _unsigned(patch: Path, key: SigningKey) -> None:
    resign(patch, [])


def _signature_of_another_file(patch: Path, key: SigningKey) -> None:
    (patch / SUMS_NAME).write_bytes(b"")


def _linked(patch: Path, key: SigningKey) -> None:
    (patch / CHUNKS_NAME).rename(patch.parent / "elsewhere")
    (patch / CHUNKS_NAME).symlink_to(patch.parent / "elsewhere")


def _unlisted(patch: Path, key: SigningKey) -> None:
    data = (patch / CHUNKS_NAME).read_bytes()
    (patch / CHUNKS_NAME).unlink()
    _sign_anew(patch, key)
    (patch / CHUNKS_NAME).write_bytes(data)


def _shorten(patch: Path, key: SigningKey) -> None:
    os.truncate(patch / CHUNKS_NAME, CHUNK_SIZE - 1)


def _lengthen(patch: Path, key: SigningKey) -> None:
    os.truncate(patch / CHUNKS_NAME, CHUNK_SIZE + 1)


def _replace_chunk(patch: Path, key: SigningKey) -> None:
    """What a signer could do: other bytes, well signed."""
    flip_bit(patch / CHUNKS_NAME, 9)
    _sign_anew(patch, key)


@pytest.mark.parametrize(
    ("spoil", "error", "fact"),
    [
        (_unsigned, TrustError, "no signature"),
        (_by_a_stranger, TrustError, "none of which this host trusts"),
        (_signature_of_another_file, TrustError, "not a signature by"),
        (lambda p, _: flip_bit(p / PATCH_NAME, 30), DigestMismatchError, "not the file that was"),
        (lambda p, _: flip_bit(p / CHUNKS_NAME, 9), DigestMismatchError, "chunk 2 .*is damaged"),
        (_replace_chunk, DigestMismatchError, "chunk 2 .*is damaged"),
        (_shorten, TruncatedError, f"{CHUNK_SIZE - 1} bytes, not {CHUNK_SIZE}"),
        (_lengthen, TrailingDataError, f"{CHUNK_SIZE + 1} bytes, not {CHUNK_SIZE}"),
        (_linked, IntegrityError, "not a regular file"),
        (_unlisted, MalformedError, f"does not list {CHUNKS_NAME}"),
        (_other_chunk, MalformedError, "chunk 3 is not the one the bundle has"),
        (_far_chunk, MalformedError, "chunk 200; the bundle has 16"),
    ],
)
def test_a_patch_that_does_not_hold_is_refused_and_changes_nothing(
    host: Host,
    bundle: Path,
    built: dict[int, Path],
    tmp_path: Path,
    key: SigningKey,
    spoil: Spoil,
    error: type[Exception],
    fact: str,
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    before = contents(bundle)
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key)
    spoil(patch, key)
    with pytest.raises(error, match=f"{patch}.*{fact}"):
        mend(host, bundle, patch)
    assert contents(bundle) == before


def test_a_patch_for_another_bundle_is_refused(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    before = contents(bundle)
    patch = made_patch(host, built[2], built[2], tmp_path / "out", key, 2)
    with pytest.raises(IntegrityError, match=rf"{patch}: patch\.json: for tiny-1\.0\.0 with"):
        mend(host, bundle, patch)
    assert contents(bundle) == before


def test_as_many_must_sign_a_patch_as_the_host_requires(
    bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey, host: Host
) -> None:
    second = make_key(tmp_path / "second")
    sign_bundle(bundle, second)
    strict = Host(host.home, keyring_of(key, second, threshold=2))
    flip_bit(bundle / "payload.00002", 5)
    patch = made_patch(strict, bundle, built[0], tmp_path / "out", key)
    with pytest.raises(TrustError, match="signed by 1 of the 2"):
        mend(strict, bundle, patch)
    sign_bundle(patch, second)
    assert mend(strict, bundle, patch).chunks == 1


def test_each_copy_bad_elsewhere_is_mended_in_place(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(built[0], tmp_path / "b" / bundle.name))
    flip_bit(bundle / "payload.00001", 0)
    flip_bit(other / "payload.00001", CHUNK_SIZE)
    media = open_media([bundle, other])
    done = repair(host.verify(bundle, other), media, None, Silent())
    assert done == Repair((bundle / "payload.00001",), 1)
    assert contents(bundle) == contents(built[0])


def test_to_does_not_overwrite_the_bundle_itself(host: Host, protected: Path) -> None:
    (protected / "payload.00001").unlink()
    before = contents(protected)
    with pytest.raises(UsageError, match=f"{protected}: is the bundle itself"):
        mend(host, protected, to=protected.parent)
    assert contents(protected) == before


def test_a_link_in_the_way_of_the_new_file_is_not_followed(
    host: Host, protected: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (protected / "payload.00001").unlink()
    (protected / ".tmp-payload.00001").symlink_to(victim)
    mend(host, protected)
    assert victim.read_bytes() == b"precious"
    assert not (protected / ".tmp-payload.00001").exists()


def test_patches_are_told_from_bundles(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    patch = made_patch(host, bundle, built[0], tmp_path / "stick", key, 1)
    assert split_patches([bundle, patch]) == ([bundle], [patch])
    assert split_patches([bundle, patch.parent]) == ([bundle], [patch])
    shutil.copytree(bundle, tmp_path / "stick" / bundle.name)
    assert split_patches([tmp_path / "stick"]) == ([tmp_path / "stick"], [])


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


def airpack(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packager", *map(str, words)],
        env={**os.environ, "AIRPACK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_whole_way_by_the_commands(
    bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    home, ticket, team = tmp_path / "home", tmp_path / "ticket.txt", tmp_path / "team"
    signer = make_key(team)
    source = Path(shutil.copytree(built[0], tmp_path / "source" / bundle.name))
    for directory in (bundle, source):
        sign_bundle(directory, signer)
    assert airpack(home, "trust", "add", f"{team}.pub").returncode == 0
    whole = airpack(home, "verify", bundle, "--ticket", ticket)
    assert (whole.returncode, ticket.exists()) == (0, False)
    assert "no ticket is needed" in whole.stderr
    flip_bit(bundle / "payload.00002", 5)
    (bundle / "payload.00005").unlink()

    found = airpack(home, "verify", bundle, "--ticket", ticket)
    assert found.returncode == 10
    assert found.stdout.endswith(f"\n\n{ticket.read_text()}")
    assert f"airpack build BUNDLE --for-ticket {ticket}" in found.stderr

    answer = ["--for-ticket", ticket, "-o", tmp_path / "out", "--key", team]
    made = airpack(home, "build", source, *answer)
    assert made.returncode == 0, made.stderr
    [patch] = (tmp_path / "out").iterdir()

    mended = airpack(home, "repair", bundle, patch, "--in-place")
    assert mended.returncode == 0, mended.stderr
    assert airpack(home, "verify", bundle).returncode == 0
    assert airpack(home, "install", bundle, "--no-smoke").returncode == 0


def test_what_makes_no_sense_for_a_ticket_is_said_at_once(
    bundle: Path, tmp_path: Path, host: Host
) -> None:
    inside = airpack(host.home.root, "verify", bundle, "--ticket", bundle / "t.txt")
    assert (inside.returncode, (bundle / "t.txt").exists()) == (2, False)
    nowhere = airpack(host.home.root, "verify", bundle, "--ticket", tmp_path / "no" / "t.txt")
    assert nowhere.returncode == 2
    answer = ["build", bundle, "--for-ticket", tmp_path / "t", "-o", tmp_path / "out"]
    extra = airpack(host.home.root, *answer, "--parity", "1")
    assert (extra.returncode, "--parity and --for-ticket" in extra.stderr) == (2, True)
    assert airpack(host.home.root, "build", bundle, "-o", tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()


def test_05_a_key_that_came_with_the_patch_is_not_trusted(
    host: Host, bundle: Path, built: dict[int, Path], tmp_path: Path, key: SigningKey
) -> None:
    patch = made_patch(host, bundle, built[0], tmp_path / "out", key, 1)
    make_key(patch / "theirs")
    words = ["repair", bundle, patch, "--in-place", "--pub", patch / "theirs.pub"]
    refused = airpack(host.home.root, *words)
    assert refused.returncode == 11
    assert "came on the medium" in refused.stderr
