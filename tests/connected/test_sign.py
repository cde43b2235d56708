"""Signatures over a bundle's sums, ours and those of others."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from support.bundles import make_bundle, make_key

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import import_signature, sign_bundle
from packager.errors import IntegrityError, MalformedError, TrustError, UsageError
from packager.format.sums import SUMS_NAME


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return make_key(tmp_path / "a.key")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "medium", [])


def state(bundle: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.iterdir()}


def openssl_signature(key: Path, bundle: Path, out: Path) -> Path:
    command = ["openssl", "dgst", "-sha256", "-sign", key, "-out", out, bundle / SUMS_NAME]
    subprocess.run(command, check=True)
    return out


def test_signatures_are_added_and_nothing_else_changes(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    second = make_key(tmp_path / "b.key", "ml-dsa-87")
    before = state(bundle)

    ids = {sign_bundle(bundle, key), sign_bundle(bundle, second)}

    assert ids == {key.public.key_id, second.public.key_id}
    added = {name: value for name, value in state(bundle).items() if name not in before}
    names = {f"{SUMS_NAME}.{key_id}.sig" for key_id in ids}
    names.add(f"original.{key.public.key_id}.model.sig")
    assert added.keys() == names | {f"spare.{name}" for name in names}
    assert {name: state(bundle)[name] for name in before} == before


def test_stock_openssl_verifies_the_signature(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    key_id = sign_bundle(bundle, key)

    command = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "a.key.pub"]
    command += ["-signature", bundle / f"{SUMS_NAME}.{key_id}.sig", bundle / SUMS_NAME]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"Verified OK\n"


def test_signature_made_by_openssl_is_imported(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    made = openssl_signature(tmp_path / "a.key", bundle, tmp_path / "sig")

    assert import_signature(bundle, made, tmp_path / "a.key.pub") == key.public.key_id
    placed = bundle / f"{SUMS_NAME}.{key.public.key_id}.sig"
    assert placed.read_bytes() == made.read_bytes()


@pytest.mark.parametrize("how", ["other key", "other file", "truncated", "empty", "flipped"])
def test_07_signature_that_does_not_hold_is_not_imported(
    tmp_path: Path, bundle: Path, key: SigningKey, how: str
) -> None:
    make_key(tmp_path / "b.key")
    signer = tmp_path / ("b.key" if how == "other key" else "a.key")
    signed = make_bundle(tmp_path / "other", [], version="2") if how == "other file" else bundle
    made = openssl_signature(signer, signed, tmp_path / "sig")
    data = bytearray(made.read_bytes())
    if how == "flipped":
        data[-1] ^= 1
    made.write_bytes({"truncated": data[:-1], "empty": b""}.get(how, data))
    before = state(bundle)

    with pytest.raises(TrustError, match=f"{made}: not a signature of {key.public.key_id}"):
        import_signature(bundle, made, tmp_path / "a.key.pub")
    assert state(bundle) == before


def test_a_tokens_bare_r_and_s_are_taken_and_kept_as_openssl_has_them(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    made = openssl_signature(tmp_path / "a.key", bundle, tmp_path / "sig").read_bytes()
    r, s = decode_dss_signature(made)
    (tmp_path / "raw").write_bytes(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    import_signature(bundle, tmp_path / "raw", tmp_path / "a.key.pub")
    assert (bundle / f"{SUMS_NAME}.{key.public.key_id}.sig").read_bytes() == made

    (tmp_path / "raw").write_bytes(s.to_bytes(32, "big") + r.to_bytes(32, "big"))
    with pytest.raises(TrustError, match="not a signature"):
        import_signature(bundle, tmp_path / "raw", tmp_path / "a.key.pub")


def test_a_private_key_is_not_taken_for_the_public_one(
    tmp_path: Path, bundle: Path, key: SigningKey
) -> None:
    made = openssl_signature(tmp_path / "a.key", bundle, tmp_path / "sig")
    with pytest.raises(TrustError, match="this is a private key"):
        import_signature(bundle, made, tmp_path / "a.key")


def test_an_endless_signature_is_not_read(tmp_path: Path, bundle: Path, key: SigningKey) -> None:
    (tmp_path / "sig").write_bytes(bytes(1 << 20))
    with pytest.raises(IntegrityError, match="larger than"):
        import_signature(bundle, tmp_path / "sig", tmp_path / "a.key.pub")


def test_a_folder_that_is_no_bundle_is_not_signed(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"{tmp_path / 'empty'}: not a bundle"):
        sign_bundle(tmp_path / "empty", key)
    assert list((tmp_path / "empty").iterdir()) == []


def test_sums_that_are_none_are_not_signed(bundle: Path, key: SigningKey) -> None:
    (bundle / SUMS_NAME).write_bytes(b"sign this, please\n")
    before = state(bundle)
    with pytest.raises(MalformedError, match=SUMS_NAME):
        sign_bundle(bundle, key)
    assert state(bundle) == before
