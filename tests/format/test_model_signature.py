"""OpenSSF model signatures as bytes: what is taken apart, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import AirpackError, MalformedError, TrustError, UsageError
from packager.format.digest import Digest
from packager.format.envelope import pre_authentication_encoding
from packager.format.model_signature import (
    MAX_MODEL_SIGNATURE_SIZE,
    ModelSignature,
    encode_model_signature,
    encode_statement,
    parse_model_signature,
    parse_statement,
)

FILES = {"model.safetensors": Digest.of(b"a"), "sub/b.json": Digest.of(b"b")}
SIGNED = ModelSignature(encode_statement("m", FILES), b"signature", "0" * 64)
Change = Callable[[dict[str, Any]], object]


def changed_bundle(change: Change) -> bytes:
    document = json.loads(encode_model_signature(SIGNED))
    change(document)
    return json.dumps(document).encode()


def changed_statement(change: Change) -> bytes:
    document = json.loads(SIGNED.payload)
    change(document)
    return json.dumps(document).encode()


def resources(document: dict[str, Any]) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = document["predicate"]["resources"]
    return listed


def test_the_lengths_in_what_is_signed_count_bytes() -> None:
    # protocol.md of DSSE v1.0.0 has the first of these as its example.
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("\u00e9", b"\n") == b"DSSEv1 2 \xc3\xa9 1 \n"


def test_what_is_written_is_read() -> None:
    assert parse_model_signature(encode_model_signature(SIGNED), "x") == SIGNED
    assert parse_statement(SIGNED.payload, "x") == FILES


def test_files_are_listed_by_the_components_of_their_paths_as_the_package_does() -> None:
    files = {path: Digest.of(path.encode()) for path in ("a/z", "a-b", "a", "a.b/c")}
    listed = resources(json.loads(encode_statement("m", files)))
    assert [entry["name"] for entry in listed] == ["a", "a/z", "a-b", "a.b/c"]


def test_members_that_others_add_are_passed_over() -> None:
    def add(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["timestampVerificationData"] = {}
        del document["verificationMaterial"]["publicKey"]["hint"]
        document["dsseEnvelope"]["signatures"][0]["keyid"] = "mine"

    parsed = parse_model_signature(changed_bundle(add), "x")
    assert parsed == ModelSignature(SIGNED.payload, SIGNED.signature, None)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d.update(mediaType="application/json"), "mediaType"),
        (lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), "payloadType"),
        (lambda d: d["dsseEnvelope"].update(payload="e30"), "payload: not base64"),
        (lambda d: d["dsseEnvelope"].update(payload="e30=\u00e9"), "payload: not base64"),
        (lambda d: d["dsseEnvelope"].update(payload="e31="), "payload: not base64"),
        (lambda d: d["dsseEnvelope"].update(payload=7), "expected text"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), "0 of them"),
        (lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AAAA"}), "2 of them"),
        (lambda d: d.pop("dsseEnvelope"), "dsseEnvelope: missing"),
        (lambda d: d.update(x=[[]] * 300), "objects and arrays"),
    ],
)
def test_bundle_of_another_form_is_refused(change: Change, fact: str) -> None:
    with pytest.raises(MalformedError, match=f"^model.sig: .*{fact}"):
        parse_model_signature(changed_bundle(change), "model.sig")


def test_bundle_made_with_a_certificate_is_not_taken_for_a_forged_one() -> None:
    data = changed_bundle(
        lambda d: d.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}})
    )
    with pytest.raises(TrustError, match="not made with a key, but with a certificate"):
        parse_model_signature(data, "model.sig")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"mediaType":"a","mediaType":"b"}',
        b'{"a":' * 1000,
        b"[" * 100_000,
        b'"' + b"x" * MAX_MODEL_SIGNATURE_SIZE,
    ],
    ids=["empty", "not UTF-8", "a list", "a key twice", "deep", "deeper", "huge"],
)
def test_hostile_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match=r"^model\.sig: "):
        parse_model_signature(data, "model.sig")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda d: d["subject"].append(d["subject"][0]), "2 of them"),
        (lambda d: d["subject"][0]["digest"].update(sha256="0" * 64), "has not the digest"),
        (lambda d: resources(d).pop(), "has not the digest"),
        (lambda d: resources(d).reverse(), "has not the digest"),
        (lambda d: d["predicate"]["serialization"].update(method="shards"), "is not files"),
        (lambda d: d["predicate"]["serialization"].update(hash_type="blake3"), "is not sha256"),
        (lambda d: resources(d)[0].update(algorithm="blake3"), "is not sha256"),
        (lambda d: resources(d)[0].update(digest="0" * 63), "not a sha256"),
        (lambda d: resources(d).append(resources(d)[0]), "is there twice"),
    ],
)
def test_statement_of_another_form_is_refused(change: Change, fact: str) -> None:
    with pytest.raises(MalformedError, match=f"^model.sig: the statement.*{fact}"):
        parse_statement(changed_statement(change), "model.sig")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\\b", "a\nb", "\u202ea"]
)
def test_statement_on_a_file_outside_of_the_folder_is_refused(name: str) -> None:
    payload = changed_statement(lambda d: resources(d)[0].update(name=name))
    with pytest.raises(MalformedError, match="is not the path of a file in the folder"):
        parse_statement(payload, "model.sig")


def test_a_signature_too_large_for_any_reader_is_not_written() -> None:
    large = ModelSignature(bytes(MAX_MODEL_SIGNATURE_SIZE), b"", None)
    with pytest.raises(UsageError, match="too many files"):
        encode_model_signature(large)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["mediaType", "verificationMaterial", "publicKey", "dsseEnvelope"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_is_refused_by_an_error_of_our_own(data: bytes) -> None:
    with pytest.raises(AirpackError):
        parse_model_signature(data, "model.sig")
    with pytest.raises(AirpackError):
        parse_statement(data, "model.sig")


def test_a_payload_is_in_base64_of_the_standard_alphabet() -> None:
    envelope = json.loads(encode_model_signature(SIGNED))["dsseEnvelope"]
    assert base64.b64decode(envelope["payload"], validate=True) == SIGNED.payload
