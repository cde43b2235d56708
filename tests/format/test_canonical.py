"""Canonical JSON: one value, one sequence of bytes, in both directions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format.canonical import MAX_CONTAINERS, MAX_DEPTH, MAX_INTEGER, Json, decode, encode

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes) -> Json:
    return decode(data, what="file.json", max_size=1 << 20)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Json) -> None:
    assert read(encode(value)) == value


@given(VALUES)
def test_any_other_way_to_write_a_value_is_refused(value: Json) -> None:
    data = encode(value)
    ways = {json.dumps(value).encode(), json.dumps(value, indent=1).encode(), data + b" "}
    for other in ways - {data}:
        with pytest.raises(MalformedError, match=r"\Afile\.json: not in canonical form"):
            read(other)


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_the_only_way_to_write_their_value(data: bytes) -> None:
    try:
        value = read(data)
    except MalformedError:
        return
    assert encode(value) == data


def test_what_is_written_follows_rfc_8785() -> None:
    value: Json = {"b": [1, -1, True, None], "a": '€$\u000f\nA\'B"\\\\"/\x7f', "B": {}, "": []}
    expected = (
        '{"":[],"B":{},"a":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f","b":[1,-1,true,null]}'
    ).encode()
    assert encode(value) == expected


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_24_nesting_is_bounded_and_brackets_in_text_are_not_nesting() -> None:
    assert read(nested(MAX_DEPTH + 1)) is not None
    for depth in (MAX_DEPTH + 2, 900, 100_000):
        with pytest.raises(MalformedError, match=r"\Afile\.json: .*nested deeper than 32"):
            read(nested(depth))
    objects = b'{"a":' * (MAX_DEPTH + 1) + b"0" + b"}" * (MAX_DEPTH + 1)
    with pytest.raises(MalformedError, match=r"\Afile\.json: .*nested deeper than 32"):
        read(objects)
    assert read(objects[5:-1]) is not None
    text = b'["' + b'[{\\"' * 1000 + b'"]'
    assert encode(read(text)) == text


def test_25_a_document_over_its_limit_is_refused_before_it_is_parsed() -> None:
    data = encode("x" * 98)
    assert decode(data, what="file.json", max_size=100) == "x" * 98
    with pytest.raises(MalformedError, match=r"file\.json: 100 bytes, more than the limit of 99"):
        decode(data, what="file.json", max_size=99)


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, -(2**53), (1,), b"x", {1: 2}, {"é": 1},
    {"a\x1b": 1}, {"a": {"b": [0, "\ud800"]}}, {"\ud800": 1}, set()])  # fmt: skip
def test_23_26_a_value_without_a_canonical_form_is_never_written(value: object) -> None:
    with pytest.raises(MalformedError):
        encode(value)  # type: ignore[arg-type]


def test_a_fault_is_named_with_its_place_in_one_printable_line() -> None:
    with pytest.raises(MalformedError, match=r"file\.json: \$\.a\.b\[1\]: a lone surrogate"):
        read(b'{"a":{"b":[0,"\\udfff"]}}')
    for key in ("\\u001b[2J", "k" * 100_000):
        with pytest.raises(MalformedError) as caught:
            read(b'{"%s":{"a":"\\ud800"}}' % key.encode())
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 300


def test_25_more_objects_and_arrays_than_the_limit_are_refused_before_parsing() -> None:
    data = b"[" + b"{}," * MAX_CONTAINERS
    with pytest.raises(MalformedError, match=r"file\.json: more than 2097152 objects and arrays"):
        decode(data, what="file.json", max_size=len(data))
