"""The subset of YAML that a person writes."""

from __future__ import annotations

import time

import pytest

from packager.errors import ParseError
from packager.format.yaml_text import MAX_DEPTH, parse_yaml


@pytest.mark.parametrize("text", ["1:30", "1:30.5", "-1:1:1", "190:20:30.15"])
def test_a_number_to_the_base_60_is_text(text: str) -> None:
    assert parse_yaml(f"a: {text}".encode(), where="x", max_size=100) == {"a": text}


def test_a_very_long_number_to_the_base_60_takes_no_time() -> None:
    text = "1" + ":1" * 200_000
    began = time.monotonic()
    assert parse_yaml(text.encode(), where="x", max_size=1 << 20) == text
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("v1", "v1"),
    ],
)
def test_other_numbers_stay_numbers(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}".encode(), where="x", max_size=100) == {"a": value}


def test_nesting_is_bounded_however_much_stood_before_it() -> None:
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    before = "".join(f"a{number}: {{b: [c]}}\n" for number in range(50))
    value = parse_yaml(f"{before}d: {deep}".encode(), where="x", max_size=10_000)
    assert isinstance(value, dict)
    with pytest.raises(ParseError, match=r"\Ax: line 51, .*: nested deeper than 16"):
        parse_yaml(f"{before}d: [{deep}]".encode(), where="x", max_size=10_000)
    beside = "[0, " * MAX_DEPTH + "0" + "]" * MAX_DEPTH
    with pytest.raises(ParseError, match="nested deeper than 16"):
        parse_yaml(beside.encode(), where="x", max_size=10_000)


def test_an_anchor_is_refused_though_nothing_refers_to_it() -> None:
    with pytest.raises(ParseError, match="line 1, column 4: anchors and aliases are not used here"):
        parse_yaml(b"a: &x 1", where="x", max_size=100)
