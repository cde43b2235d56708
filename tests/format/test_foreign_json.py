"""JSON that others wrote: what it costs to refuse it."""

from __future__ import annotations

import time

import pytest

from packager.errors import MalformedError
from packager.format.foreign_json import MAX_CONTAINERS, parse_json


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
