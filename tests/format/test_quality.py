"""The figures of quality: read as written, bounded, and turned into what people read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.figures import FIGURES

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.quality import Quality


def parse(values: object) -> Quality:
    return Quality.parse(Fields.of(values, "index", MalformedError))


@given(
    st.builds(
        Quality,
        text=st.binary().map(Digest.of),
        baseline=st.sampled_from(["F32", "F16", "BF16"]),
        tokens=st.integers(1, 1 << 24),
        loss=st.integers(0, 700_000_000),
        original_loss=st.integers(0, 700_000_000),
        loss_error=st.integers(0, 700_000_000),
        divergence=st.integers(0, 10**12),
        divergence_error=st.integers(0, 10**12),
        agreement=st.integers(0, 1_000_000),
    )
)
def test_figures_are_read_as_they_were_written(figures: Quality) -> None:
    raw = canonical.encode(figures.encode())
    assert parse(canonical.decode(raw, what="index", max_size=1 << 16)) == figures


def test_the_increase_is_the_ratio_of_the_perplexities() -> None:
    ratio = FIGURES.perplexity / FIGURES.original_perplexity
    assert FIGURES.increase == pytest.approx(ratio - 1)
    assert FIGURES.increase_margin == pytest.approx(ratio * math.expm1(0.00196))
    assert FIGURES.divergence_margin == pytest.approx(0.00196)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokens", 0), ("loss", -1), ("agreement", 1_000_001), ("loss", 700_000_001), ("loss", 1.5),
     ("baseline", "two\nlines"), ("text", "abc")],
)  # fmt: skip
def test_a_figure_out_of_bounds_is_refused(key: str, value: Any) -> None:
    encoded = FIGURES.encode()
    assert isinstance(encoded, dict)
    with pytest.raises(MalformedError, match=key):
        parse({**encoded, key: value})


def test_an_unknown_figure_is_refused() -> None:
    encoded = FIGURES.encode()
    assert isinstance(encoded, dict)
    with pytest.raises(MalformedError, match="unknown field"):
        parse({**encoded, "stars": 5})
