"""Public keys: which kinds are taken, and that stock openssl and airpack agree."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import flip_bit, make_bundle, make_key

from packager.errors import TrustError
from packager.format.bundle import INDEX_NAME
from packager.format.sums import SUMS_NAME, signature_name
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.keys import parse_public_key, parse_spki
from packager.trust.verify import Evidence, verify_bundle

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)


def openssl(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, check=False)


def pem_of(public: object) -> bytes:
    pem = public.public_bytes(  # type: ignore[attr-defined]
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    assert isinstance(pem, bytes)
    return pem


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
        mldsa.MLDSA65PrivateKey.generate,
    ],
    ids=["P-384", "secp256k1", "RSA", "Ed25519", "ML-DSA-65"],
)
def test_11_a_key_of_another_curve_or_kind_is_refused(make: Callable[[], object]) -> None:
    pem = pem_of(make().public_key())  # type: ignore[attr-defined]
    with pytest.raises(TrustError, match=r"team\.pub: neither an ECDSA P-256 nor an ML-DSA-87"):
        parse_public_key(pem, "team.pub")


def test_a_private_key_where_a_public_one_belongs_is_refused_and_not_shown(tmp_path: Path) -> None:
    make_key(tmp_path / "team")
    private = (tmp_path / "team").read_bytes()
    with pytest.raises(TrustError, match=r"team: this is a private key") as caught:
        parse_public_key(private, "team")
    assert private.split(b"\n")[1].decode() not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ a@b\n",
        bytes(4096),
    ],
)
def test_11_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(TrustError, match=r"team\.pub: not a public key in PEM form"):
        parse_public_key(data, "team.pub")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_refused(data: bytes) -> None:
    with pytest.raises(TrustError, match="not a public key"):
        parse_spki(data, "x")


@pytest.mark.parametrize("algorithm", ["p256", "ml-dsa-87"])
def test_a_key_is_known_by_the_digest_of_its_spki(tmp_path: Path, algorithm: str) -> None:
    key = make_key(tmp_path / "team", algorithm).public
    assert key.algorithm == algorithm
    assert key == parse_public_key((tmp_path / "team.pub").read_bytes(), "team.pub")
    assert key.fingerprint == hashlib.sha256(key.spki).hexdigest()
    assert key.key_id == key.fingerprint[:16]
    assert "".join(key.spoken_fingerprint.split()) == key.fingerprint
    assert [len(line) for line in key.spoken_fingerprint.splitlines()] == [39, 39]


def test_openssl_gives_the_same_fingerprint(tmp_path: Path) -> None:
    key = make_key(tmp_path / "team").public
    der = openssl("pkey", "-pubin", "-in", tmp_path / "team.pub", "-outform", "DER").stdout
    assert hashlib.sha256(der).hexdigest() == key.fingerprint


def test_openssl_verifies_the_signature_of_a_bundle_and_refuses_a_changed_one(
    tmp_path: Path,
) -> None:
    key = make_key(tmp_path / "team")
    made = make_bundle(tmp_path, [key])
    command = (
        "dgst", "-sha256", "-verify", tmp_path / "team.pub",
        "-signature", made / signature_name(key.public.key_id), made / SUMS_NAME,
    )  # fmt: skip
    assert openssl(*command).stdout == b"Verified OK\n"
    flip_bit(made / SUMS_NAME, 0)
    changed = openssl(*command)
    assert changed.returncode != 0
    assert b"OK" not in changed.stdout


def test_a_bundle_that_openssl_signed_is_believed(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, [])
    private, public, signature = (tmp_path / name for name in ("hsm", "hsm.pub", "sums.sig"))
    for command in (
        ("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private),
        ("pkey", "-in", private, "-pubout", "-out", public),
        ("dgst", "-sha256", "-sign", private, "-out", signature, made / SUMS_NAME),
    ):
        assert openssl(*command).returncode == 0
    key = parse_public_key(public.read_bytes(), "hsm.pub")
    evidence = Evidence(
        sums=(made / SUMS_NAME).read_bytes(),
        signatures={key.key_id: signature.read_bytes()},
        index=(made / INDEX_NAME).read_bytes(),
    )
    verified = verify_bundle(evidence, Keyring().with_key(TrustedKey("hsm", key)), now=NOW)
    assert [signer.name for signer in verified.signers] == ["hsm"]
