"""DSSE envelopes as bytes: the specification's own example, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import make_key

from packager.errors import MalformedError, TrustError
from packager.format.digest import Digest
from packager.format.envelope import (
    IN_TOTO,
    Envelope,
    encode_envelope,
    envelope_key_id,
    envelope_name,
    parse_envelope,
    pre_authentication_encoding,
)
from packager.trust.provenance import check_provenance

# protocol.md of DSSE v1.0.0, "Test Vectors".
VECTOR_TYPE = "http://example.com/HelloWorld"
VECTOR_X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
VECTOR_Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
VECTOR_SIGNATURE = (
    "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
)
STATEMENT = '{"name":"modèle"}'.encode()


def test_the_example_of_the_specification_holds() -> None:
    encoded = pre_authentication_encoding(VECTOR_TYPE, b"hello world")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    raw = base64.b64decode(VECTOR_SIGNATURE)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key = ec.EllipticCurvePublicNumbers(VECTOR_X, VECTOR_Y, ec.SECP256R1()).public_key()
    key.verify(der, encoded, ec.ECDSA(SHA256()))


def test_lengths_count_bytes_and_not_characters() -> None:
    assert pre_authentication_encoding("é/µ", "où ?".encode()) == "DSSEv1 5 é/µ 5 où ?".encode()


def test_an_envelope_reads_as_other_tools_write_it() -> None:
    data = encode_envelope(Envelope(STATEMENT, "0123456789abcdef", b"\x00\xff"))

    assert json.loads(data) == {
        "payload": base64.b64encode(STATEMENT).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": "0123456789abcdef", "sig": "AP8="}],
    }
    assert parse_envelope(data, "x") == Envelope(STATEMENT, "0123456789abcdef", b"\x00\xff")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"vnd.in-toto", b"vnd.out-toto"),
        (b'"sig":"AP8="', b'"sig":"AP8"'),
        (b'"sig":"AP8="', b'"sig":1'),
        (b'"sig":"AP8="', '"sig":"é"'.encode()),
        (b'"signatures":[{', b'"signatures":[{"keyid":"0","sig":"AP8="},{'),
        (b'{"payload"', b'{"extra":1,"payload"'),
        (b"{", b""),
        (b"}", b"} "),
    ],
)
def test_what_is_no_envelope_of_ours_is_refused(old: bytes, new: bytes) -> None:
    data = encode_envelope(Envelope(STATEMENT, "0123456789abcdef", b"\x00\xff"))
    assert old in data

    with pytest.raises(MalformedError, match=r"^x: "):
        parse_envelope(data.replace(old, new, 1), "x")


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_are_read_or_refused_and_nothing_else(
    payload: bytes, place: int, value: int
) -> None:
    made = Envelope(payload or b"x", "0123456789abcdef", b"\x00\xff")
    data = bytearray(encode_envelope(made))
    data[place % len(data)] = value

    for candidate in (bytes(data), payload):
        with contextlib.suppress(MalformedError):
            parse_envelope(candidate, "x")
    assert parse_envelope(encode_envelope(made), "x") == made


@pytest.mark.parametrize("algorithm", ["p256", "ml-dsa-87"])
def test_an_envelope_holds_by_its_own_key_and_over_its_own_statement_only(
    tmp_path: Path, algorithm: str
) -> None:
    key, other = (make_key(tmp_path / name, algorithm) for name in ("a.key", "b.key"))
    signature = key.sign(pre_authentication_encoding(IN_TOTO, STATEMENT))
    made = Envelope(STATEMENT, key.public.key_id, signature)
    listed = Digest.of(STATEMENT)

    check_provenance(encode_envelope(made), key.public, listed, "x")
    for envelope, public, digest in (
        (made, other.public, listed),
        (made, key.public, Digest.of(b"another")),
        (replace(made, payload=STATEMENT + b" "), key.public, Digest.of(STATEMENT + b" ")),
        (replace(made, key_id=other.public.key_id), key.public, listed),
        (replace(made, signature=key.sign(STATEMENT)), key.public, listed),
        (replace(made, signature=signature[:-1]), key.public, listed),
    ):
        with pytest.raises(TrustError, match=r"^x: "):
            check_provenance(encode_envelope(envelope), public, digest, "x")


def test_the_name_says_whose_it_is() -> None:
    assert envelope_key_id(envelope_name("0123456789abcdef")) == "0123456789abcdef"
    for name in ("provenance.json", "provenance.0123456789ABCDEF.dsse.json", "x.dsse.json"):
        assert envelope_key_id(name) is None


def test_an_empty_signature_is_refused_as_a_document() -> None:
    with pytest.raises(MalformedError, match="sig: is empty"):
        parse_envelope(encode_envelope(Envelope(STATEMENT, "0123456789abcdef", b"")), "x")
