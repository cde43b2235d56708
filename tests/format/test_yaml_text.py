"""The subset of YAML that a person writes."""

from __future__ import annotations

import time

import pytest

from packager.format.yaml_text import parse_yaml


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
