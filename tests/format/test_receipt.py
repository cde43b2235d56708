"""The receipt: read as it was written, or not written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.receipt import (
    LogHead,
    MediumRecord,
    Receipt,
    SmokeRecord,
    encode_receipt,
    parse_receipt,
    receipt_json,
)

TEXT = st.text(min_size=1, max_size=12)
COUNT = st.integers(1, canonical.MAX_INTEGER)
MEDIA = st.builds(MediumRecord, TEXT, *[st.none() | TEXT] * 4)
RECEIPTS = st.builds(
    Receipt,
    name=TEXT,
    version=TEXT,
    sequence=COUNT,
    generation=COUNT,
    bundle=st.binary().map(Digest.of),
    signers=st.lists(TEXT, max_size=2).map(tuple),
    variants=st.lists(TEXT, max_size=2).map(tuple),
    installed=TEXT,
    operator=TEXT,
    media=st.lists(MEDIA, max_size=2).map(tuple),
    airpack=TEXT,
    smoke=st.lists(
        st.builds(SmokeRecord, TEXT, st.booleans(), st.booleans(), st.booleans(), COUNT), max_size=2
    ).map(tuple),
    log=st.builds(LogHead, COUNT, st.binary().map(Digest.of)),
    host_key=st.none() | TEXT,
)
RECEIPT = Receipt(
    name="tiny", version="1.0.0", sequence=3, generation=1, bundle=Digest.of(b""),
    signers=("0123456789abcdef",), variants=("q4_k_m",), installed="2026-12-01T00:00:00Z",
    operator="root", media=(MediumRecord("/mnt/stick", serial="4C53"),), airpack="0.1.0",
    smoke=(SmokeRecord("q4_k_m", ok=True, tokens_match=True, namespace=True,
                       millitokens_per_second=12_345),),
    log=LogHead(0, Digest.of(b"")),
)  # fmt: skip


@given(RECEIPTS)
def test_a_receipt_is_read_as_it_was_written(receipt: Receipt) -> None:
    assert parse_receipt(encode_receipt(receipt)) == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"operator": ""},
        {"sequence": 0},
        {"generation": 0},
        {"media": (MediumRecord(""),)},
        {"name": "\udcff"},
    ],
)
def test_a_receipt_that_could_not_be_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        encode_receipt(replace(RECEIPT, **change))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format": "airpack-bundle"}, "format: not airpack-receipt"),
        ({"extra": 1}, "extra: unknown field"),
        ({"bundle": "0" * 40}, "bundle: not a sha256 digest"),
        ({"sequence": True}, "sequence: expected an integer, got true/false"),
        ({"smoke": [1]}, "smoke[0]: expected a mapping"),
        ({"smoke": [{"variant": "q", "rate": 1}]}, "smoke[0].rate: unknown field"),
        ({"media": [None]}, "media[0]: expected a mapping"),
        ({"log": {"events": -1, "digest": "0" * 64}}, "log.events: -1 is not between"),
    ],
)
def test_a_receipt_with_a_fault_is_refused_with_its_place(
    change: dict[str, Any], fact: str
) -> None:
    data = canonical.encode({**receipt_json(RECEIPT), **change})
    with pytest.raises(MalformedError) as caught:
        parse_receipt(data)
    assert caught.value.message.startswith("receipt.json: ")
    assert fact in caught.value.message


@given(data=st.data())
def test_a_truncated_receipt_is_refused(data: st.DataObject) -> None:
    whole = encode_receipt(RECEIPT)
    with pytest.raises(MalformedError, match=r"\Areceipt\.json: "):
        parse_receipt(whole[: data.draw(st.integers(0, len(whole) - 1))])
