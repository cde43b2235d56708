"""JSON that others wrote: one meaning or none, within bounds, and what it costs to refuse it."""

from __future__ import annotations

import json
import time

import pytest

from packager.errors import MalformedError
from packager.format.foreign_json import MAX_CONTAINERS, MAX_NESTING, parse_json


def nested(depth: int, inner: str = "0") -> str:
    """``inner`` within as many arrays and objects, in turn."""
    pairs = [("[", "]") if level % 2 else ('{"a":', "}") for level in range(depth)]
    return "".join(p[0] for p in pairs) + inner + "".join(p[1] for p in reversed(pairs))


def read(text: str) -> object:
    return parse_json(text.encode("utf-8", "surrogatepass"), what="file.json")


def refused(text: str, fact: str) -> None:
    with pytest.raises(MalformedError, match=rf"\Afile\.json: {fact}"):
        read(text)


def test_nesting_is_taken_up_to_its_bound_and_refused_beyond_it() -> None:
    assert read(nested(MAX_NESTING)) == json.loads(nested(MAX_NESTING))
    for depth in (MAX_NESTING + 1, 100_000):
        refused(nested(depth), "nested deeper than 128")
    beside = ",".join(["[]", "{}"] * MAX_NESTING)
    refused(f"[{beside},{nested(MAX_NESTING)}]", "nested deeper than 128")
    assert read(f"[{beside},{nested(MAX_NESTING - 1)}]") is not None
    refused('[{},{"a":[],"b":' * MAX_NESTING + "0" + "}]" * MAX_NESTING, "nested deeper than 128")


def test_brackets_within_text_are_no_nesting_and_text_ends_at_its_own_quote() -> None:
    for text in ("[" * 200, '\\"' + "{" * 200, "\\\\" + "[" * 200, 'a"' + "[" * 200 + '\\"'):
        assert read(json.dumps({"a": text, "b": []})) == {"a": text, "b": []}
    for text in ("", "\\\\", '\\"', "a"):
        refused(f'["{text}",{nested(MAX_NESTING)}]', "nested deeper than 128")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"a": [NaN]}'])
def test_a_number_that_json_does_not_have_is_refused(text: str) -> None:
    refused(text, "holds -?(NaN|Infinity), which is not JSON")


@pytest.mark.parametrize(
    "text", [r'"\ud800"', r'["a", {"b": "\udfff"}]', r'{"\ud800": 1}', r'[[["\ud800"]], "a"]']
)
def test_half_a_character_is_refused_wherever_it_stands(text: str) -> None:
    refused(text, ".*holds a lone surrogate")


def test_both_halves_of_a_character_are_one() -> None:
    assert read(r'{"\ud83d\ude00": ["\ud83d\ude00"]}') == {"\U0001f600": ["\U0001f600"]}


def test_what_is_no_json_is_refused_with_its_place() -> None:
    refused("\ufeff{}", "begins with a byte-order mark")
    refused("[1] 2", "not valid JSON: Extra data")
    refused("1" * 5000, "not valid JSON: ")
    with pytest.raises(MalformedError, match=r"\Afile\.json: not UTF-8 at byte 2"):
        parse_json(b'["\xff"]', what="file.json")
    refused('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' is there twice")


def test_27_a_key_said_twice_among_many_is_found_at_once() -> None:
    data = "{" + ",".join(f'"{i}":0' for i in range(200_000)) + ',"199999":0}'
    began = time.monotonic()
    with pytest.raises(MalformedError, match=r"file\.json: the key '199999' is there twice"):
        parse_json(data.encode(), what="file.json")
    assert time.monotonic() - began < 10


def test_25_more_objects_and_arrays_than_the_limit_are_refused_before_parsing() -> None:
    # Not JSON at all, so whoever parses first says something else.
    data = b"[" + b"{}," * MAX_CONTAINERS
    with pytest.raises(MalformedError, match=r"file\.json: more than 1048576 objects and arrays"):
        parse_json(data, what="file.json")


def test_a_tokenizer_with_300_000_merges_as_pairs_passes() -> None:
    data = b'{"merges":[' + b",".join([b'["a","b"]'] * 300_000) + b"]}"
    value = parse_json(data, what="tokenizer.json")
    assert isinstance(value, dict)
    assert len(value["merges"]) == 300_000
