"""The form of a key set: canonical, bounded, and refused with its place where it is bent."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.keyset import (
    KeyEntry,
    KeySet,
    SignedKeySet,
    encode_key_set,
    key_set_json,
    key_set_signature_id,
    key_set_signature_name,
    parse_key_set,
)

NAME = "keys-2.json"
PLAIN = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
DATES = st.sampled_from([None, "2026-01-01", "2027-12-31T23:59:59Z"])
ENTRY = KeyEntry("alice", b"spki", "2026-01-01", None, revoked=True, reason="stolen")
SET = KeySet(2, 1, ("ml-dsa-87", "p256"), (ENTRY, KeyEntry("bob", b"other")))


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    spkis = draw(st.lists(st.binary(min_size=1), min_size=1, max_size=4, unique=True))
    reasons = draw(st.lists(st.none() | PLAIN, min_size=len(spkis), max_size=len(spkis)))
    keys = tuple(
        KeyEntry(draw(PLAIN), spki, draw(DATES), draw(DATES), reason is not None, reason)
        for spki, reason in zip(spkis, reasons, strict=True)
    )
    algorithms = draw(st.sets(st.sampled_from(["ml-dsa-87", "p256"])))
    number = draw(st.integers(0, canonical.MAX_INTEGER))
    threshold = draw(st.integers(1, len(keys)))
    return KeySet(number, threshold, tuple(sorted(algorithms)), keys)


@given(key_sets())
def test_a_set_is_read_as_it_was_written(key_set: KeySet) -> None:
    assert parse_key_set(encode_key_set(key_set), NAME) == key_set
    assert SignedKeySet(key_set, {}).document == encode_key_set(key_set)


def test_the_fingerprint_is_what_sha256sum_says_of_the_file() -> None:
    assert encode_key_set(KeySet(1, 1, (), (KeyEntry("a", b"spki"),))) == (
        b'{"format":"airpack-key-set","format_version":1,"keys":[{"name":"a","not_after":null,'
        b'"not_before":null,"reason":null,"revoked":false,"spki":"c3BraQ=="}],"number":1,'
        b'"require_algorithms":[],"threshold":1}'
    )
    digest = KeySet(1, 1, (), (KeyEntry("a", b"spki"),)).fingerprint.hex
    assert digest == "087b93a660c371b4a8b80422b9d8f2a44e4dcf66394a35a1b39a7457aa223e35"


@pytest.mark.parametrize(
    ("bent", "place"),
    [
        ({"format": "airpack-bundle"}, "format"),
        ({"format_version": 2}, "format_version"),
        ({"number": -1}, "number"),
        ({"number": True}, "number"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 3}, "threshold"),
        ({"require_algorithms": ["p256", "ml-dsa-87"]}, "require_algorithms"),
        ({"require_algorithms": ["p256", "p256"]}, "require_algorithms"),
        ({"keys": []}, "keys"),
        ({"expires": None}, "expires"),
    ],
)
def test_a_set_that_somebody_edited_is_refused_with_its_place(
    bent: dict[str, canonical.Json], place: str
) -> None:
    with pytest.raises(MalformedError, match=rf"keys-2\.json: {place}"):
        parse_key_set(canonical.encode({**key_set_json(SET), **bent}), NAME)


@pytest.mark.parametrize(
    ("bent", "place"),
    [
        ({"name": ""}, "name"),
        ({"name": "\x1b[2J"}, "name"),
        ({"spki": "!"}, "spki"),
        ({"spki": "c3BraR=="}, "spki"),  # the same bytes, and a bit that says nothing
        ({"not_after": "tomorrow"}, "not_after"),
        ({"revoked": 1}, "revoked"),
        ({"revoked": False}, "reason"),
        ({"more": 1}, "more"),
    ],
)
def test_a_key_that_somebody_edited_is_refused_with_its_place(
    bent: dict[str, canonical.Json], place: str
) -> None:
    document = key_set_json(SET)
    (first, *others) = document["keys"] or []
    document["keys"] = [{**first, **bent}, *others]
    with pytest.raises(MalformedError, match=rf"keys-2\.json: keys\[0\]\.{place}"):
        parse_key_set(canonical.encode(document), NAME)


def test_a_key_without_a_member_is_refused_since_signatures_are_over_all_of_them() -> None:
    whole = encode_key_set(SET)
    cut = whole.replace(b'"not_after":null,', b"", 1)
    assert cut != whole
    with pytest.raises(MalformedError, match=r"keys-2\.json: keys: one leaves out a member"):
        parse_key_set(cut, NAME)


def test_08_one_key_twice_is_refused() -> None:
    twice = KeySet(1, 2, (), (KeyEntry("alice", b"spki"), KeyEntry("also alice", b"spki")))
    with pytest.raises(MalformedError, match="a key stands twice"):
        parse_key_set(encode_key_set(twice), NAME)


@given(data=st.data())
def test_a_cut_or_changed_set_is_refused_or_another_set(data: st.DataObject) -> None:
    whole = encode_key_set(SET)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + data.draw(st.binary(max_size=1)) + whole[place + 1 :]
    with suppress(MalformedError):
        assert encode_key_set(parse_key_set(changed, NAME)) == changed


def test_a_signature_is_known_by_its_name_and_no_other_file_is() -> None:
    key_id = "0123456789abcdef"
    assert key_set_signature_id(NAME, key_set_signature_name(NAME, key_id)) == key_id
    for other in (NAME, f"{NAME}.{key_id}.sig2", f"keys-3.json.{key_id}.sig", f"{NAME}.AB.sig"):
        assert key_set_signature_id(NAME, other) is None
