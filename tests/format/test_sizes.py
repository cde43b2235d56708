"""Sizes as people write and read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packager.errors import UsageError
from packager.format.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("1B", 1),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        (" 500MB ", 500_000_000),
        ("4.7GB", 4_700_000_000),
        ("0.5KiB", 512),
        ("1TiB", 1 << 40),
    ],
)
def test_a_size_is_read_in_the_unit_it_is_written_in(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "4G", "-1", "+1", "0", "0.1", "1e9", "0x10", "1_000", "1,5GB", "4GiB/s", "NaN",
     "٤GiB", "9" * 16, "1.", ".5GB", "4\nGiB\n1"],
)  # fmt: skip
def test_what_is_not_a_positive_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert repr(text) in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (4 << 30, "4 GiB"),
        ((1 << 20) - 1024 * 24 - 100, "0.976 MiB"),
        (16 << 40, "16 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_a_size_is_shown_in_three_figures(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 62))
@example(int(999.7 * 1024))
@example(int(999.7 * (1 << 30)))
@example(int(999.7 * (1 << 40)))
def test_a_size_is_never_shown_with_an_exponent_nor_far_from_what_it_is(size: int) -> None:
    text = format_size(size)
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)? ([KMGT]i)?B", text)
    if size:
        assert abs(parse_size(text) - size) <= size * 0.006
