"""Which public keys can have signed a model for OpenSSF Model Signing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.bundles import make_key

from packager.errors import TrustError
from packager.format.digest import Digest
from packager.format.model_signature import (
    ModelSignature,
    encode_model_signature,
    encode_statement,
    key_hint,
)
from packager.trust.model_signature import check_model_signature, parse_model_key

FILES = {"config.json": Digest.of(b"{}")}
Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def pem(key: Public) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("curve", "digest"),
    [(ec.SECP256R1(), SHA256()), (ec.SECP384R1(), SHA384()), (ec.SECP521R1(), SHA512())],
)
def test_a_signature_holds_with_the_hash_of_its_curve_and_no_other(
    curve: ec.EllipticCurve, digest: HashAlgorithm
) -> None:
    key = ec.generate_private_key(curve)
    spki = parse_model_key(pem(key.public_key()), "team.pub")
    unsigned = ModelSignature(encode_statement("m", FILES), b"", key_hint(spki))
    for algorithm in (SHA256(), SHA384(), SHA512()):
        signature = key.sign(unsigned.signed_bytes, ec.ECDSA(algorithm))
        data = encode_model_signature(
            ModelSignature(unsigned.payload, signature, unsigned.key_hint)
        )
        if algorithm.name == digest.name:
            check_model_signature(data, spki, FILES, "model.sig")
        else:
            with pytest.raises(TrustError, match="not a signature by the key"):
                check_model_signature(data, spki, FILES, "model.sig")


def test_a_signature_by_a_key_that_makes_none_does_not_hold(tmp_path: Path) -> None:
    key = make_key(tmp_path / "quinn", "ml-dsa-87")
    signed = ModelSignature(encode_statement("m", FILES), b"", key_hint(key.public.spki))
    signed = replace(signed, signature=key.sign(signed.signed_bytes))
    with pytest.raises(TrustError, match="not a signature by the key"):
        check_model_signature(encode_model_signature(signed), key.public.spki, FILES, "model.sig")


@pytest.mark.parametrize(
    ("files", "first"),
    [
        ({"a": Digest.of(b"a"), "b": Digest.of(b"other"), "c": Digest.of(b"c")}, "b"),
        ({"a": Digest.of(b"a"), "c": Digest.of(b"c")}, "b"),
        ({"a": Digest.of(b"a"), "b": Digest.of(b"b")}, "c"),
        ({name: Digest.of(name.encode()) for name in "abcd"}, "d"),
    ],
)
def test_a_file_that_is_changed_gone_or_added_is_named(
    files: dict[str, Digest], first: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    statement = encode_statement("m", {name: Digest.of(name.encode()) for name in "abc"})
    signed = ModelSignature(statement, b"", None)
    signed = replace(signed, signature=key.sign(signed.signed_bytes, ec.ECDSA(SHA256())))
    spki = parse_model_key(pem(key.public_key()), "team.pub")
    with pytest.raises(TrustError, match=f"signs other files than these: '{first}'"):
        check_model_signature(encode_model_signature(signed), spki, files, "model.sig")


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256K1()).public_key(),
    ed25519.Ed25519PrivateKey.generate().public_key()])  # fmt: skip
def test_a_key_of_another_kind_is_refused_with_the_kinds_there_are(key: Public) -> None:
    with pytest.raises(TrustError, match=r"team\.pub: no key .*P-256, P-384, P-521"):
        parse_model_key(pem(key), "team.pub")


def test_what_is_no_key_is_refused() -> None:
    for data in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(TrustError, match=r"team\.pub: not a public key in PEM form"):
            parse_model_key(data, "team.pub")
