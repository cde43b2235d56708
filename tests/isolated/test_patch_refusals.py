"""Patches that do not hold: refused, with their name, and nothing has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, keyring_of, make_bundle, make_key, resign
from support.hosts import Host
from support.tickets import airpack, bundle_without_parity, contents, made_patch, mend
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle
from packager.errors import (
    DigestMismatchError,
    IntegrityError,
    MalformedError,
    MissingVolumeError,
    TrailingDataError,
    TruncatedError,
    TrustError,
)
from packager.format.patch import CHUNKS_NAME, PATCH_NAME
from packager.format.sums import SUMS_NAME, spare_name
from packager.isolated.patch import split_patches


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """A bundle as it was built, without parity, in volumes of two chunks."""
    return bundle_without_parity(tmp_path_factory.mktemp("built"), key)


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    """The same on a medium."""
    return Path(shutil.copytree(built, tmp_path / "medium" / built.name))


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
    for name in (SUMS_NAME, spare_name(SUMS_NAME)):
        (patch / name).write_bytes(b"")


def _flip_document(patch: Path, key: SigningKey) -> None:
    for name in (PATCH_NAME, spare_name(PATCH_NAME)):
        flip_bit(patch / name, 30)


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
        (_flip_document, DigestMismatchError, "not the file that was"),
        (lambda p, _: flip_bit(p / CHUNKS_NAME, 9), DigestMismatchError, "chunk 2 .*is damaged"),
        (_replace_chunk, DigestMismatchError, "chunk 2 .*is damaged"),
        (_shorten, TruncatedError, f"{CHUNK_SIZE - 1} bytes, not {CHUNK_SIZE}"),
        (_lengthen, TrailingDataError, f"{CHUNK_SIZE + 1} bytes, not {CHUNK_SIZE}"),
        (
            lambda p, _: (p / CHUNKS_NAME).unlink(),
            MissingVolumeError,
            f"{CHUNKS_NAME}: is not here",
        ),
        (_linked, IntegrityError, "not a regular file"),
        (_unlisted, MalformedError, f"does not list {CHUNKS_NAME}"),
        (_other_chunk, MalformedError, "chunk 3 is not the one the bundle has"),
        (_far_chunk, MalformedError, "chunk 200; the bundle has 16"),
    ],
)
def test_a_patch_that_does_not_hold_is_refused_and_changes_nothing(
    host: Host,
    bundle: Path,
    built: Path,
    tmp_path: Path,
    key: SigningKey,
    spoil: Spoil,
    error: type[Exception],
    fact: str,
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    before = contents(bundle)
    patch = made_patch(host, bundle, built, tmp_path / "out", key)
    spoil(patch, key)
    with pytest.raises(error, match=f"{patch}.*{fact}"):
        mend(host, bundle, patch)
    assert contents(bundle) == before


def test_a_patch_for_another_bundle_is_refused(
    host: Host, bundle: Path, built: Path, tmp_path: Path, key: SigningKey
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    before = contents(bundle)
    other = make_bundle(
        tmp_path / "other", [key], files={"model.safetensors": weights(bytes(300_000))}
    )
    patch = made_patch(host, other, other, tmp_path / "out", key, 2)
    with pytest.raises(IntegrityError, match=rf"{patch}: patch\.json: for tiny-1\.0\.0 with"):
        mend(host, bundle, patch)
    assert contents(bundle) == before


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_of_each_small_file_of_a_patch_one_copy_may_be_bad(
    host: Host, bundle: Path, built: Path, tmp_path: Path, key: SigningKey, harm: str
) -> None:
    flip_bit(bundle / "payload.00002", 5)
    patch = made_patch(host, bundle, built, tmp_path / "out", key)
    for name in (SUMS_NAME, f"spare.{PATCH_NAME}", f"{SUMS_NAME}.{key.public.key_id}.sig"):
        if harm == "flip":
            flip_bit(patch / name, 20)
        else:
            (patch / name).unlink()
    mend(host, bundle, patch)
    assert contents(bundle) == contents(built)


def _name_a_volume(document: bytes) -> bytes:
    return document.replace(b'"name":"notes.txt"', b'"name":"payload.00001"')


def _name_another(document: bytes) -> bytes:
    return document.replace(b'"name":"notes.txt"', b'"name":"bundle.json"')


@pytest.mark.parametrize("change", [_name_a_volume, _name_another])
def test_a_file_that_the_bundle_does_not_have_is_refused(
    host: Host,
    bundle: Path,
    built: Path,
    tmp_path: Path,
    key: SigningKey,
    change: Callable[[bytes], bytes],
) -> None:
    (bundle / "notes.txt").unlink()
    patch = made_patch(host, bundle, built, tmp_path / "out", key)
    (patch / PATCH_NAME).write_bytes(change((patch / PATCH_NAME).read_bytes()))
    _sign_anew(patch, key)
    before = contents(bundle)
    with pytest.raises(MalformedError, match=f"{patch}.* is not a small file that the bundle has"):
        mend(host, bundle, patch)
    assert contents(bundle) == before


def test_as_many_must_sign_a_patch_as_the_host_requires(
    bundle: Path, built: Path, tmp_path: Path, key: SigningKey, host: Host
) -> None:
    second = make_key(tmp_path / "second")
    sign_bundle(bundle, second)
    strict = Host(host.home, keyring_of(key, second, threshold=2))
    flip_bit(bundle / "payload.00002", 5)
    patch = made_patch(strict, bundle, built, tmp_path / "out", key)
    with pytest.raises(TrustError, match="signed by 1 of the 2"):
        mend(strict, bundle, patch)
    sign_bundle(patch, second)
    assert mend(strict, bundle, patch).chunks == 1


def test_patches_are_told_from_bundles(
    host: Host, bundle: Path, built: Path, tmp_path: Path, key: SigningKey
) -> None:
    patch = made_patch(host, bundle, built, tmp_path / "stick", key, 1)
    assert split_patches([bundle, patch]) == ([bundle], [patch])
    assert split_patches([bundle, patch.parent]) == ([bundle], [patch])
    shutil.copytree(bundle, tmp_path / "stick" / bundle.name)
    assert split_patches([tmp_path / "stick"]) == ([tmp_path / "stick"], [])


def test_05_a_key_that_came_with_the_patch_is_not_trusted(
    host: Host, bundle: Path, built: Path, tmp_path: Path, key: SigningKey
) -> None:
    patch = made_patch(host, bundle, built, tmp_path / "out", key, 1)
    make_key(patch / "theirs")
    words = ["repair", bundle, patch, "--in-place", "--pub", patch / "theirs.pub"]
    refused = airpack(host.home.root, *words)
    assert refused.returncode == 11
    assert "came on the medium" in refused.stderr
