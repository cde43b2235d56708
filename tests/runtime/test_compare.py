from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.format.digest import Digest
from packager.format.golden import (
    MICRONATS,
    Alternatives,
    Answer,
    Circumstances,
    GoldenAnswers,
    Passage,
)
from packager.runtime.answers import OTHER_HOST, SAME_HOST, compare, divergence


def likely(*shares: float) -> Alternatives:
    return tuple((token, round(math.log(share) * MICRONATS)) for token, share in enumerate(shares))


HERE = Circumstances(
    engine="xllamacpp",
    engine_version="1",
    engine_digest=Digest.of(b"engine"),
    cpu="x86_64",
    libc="glibc 2.36",
    threads=1,
    context=512,
)
GOLDEN = GoldenAnswers(
    HERE,
    answers=(Answer("a", (0,) * 20, "b", (likely(0.5, 0.3, 0.1),) * 20),),
    passage=Passage("text", 100, 300 * MICRONATS),
)


def elsewhere(golden: GoldenAnswers, **difference: object) -> GoldenAnswers:
    """``golden`` as if it had been recorded under other circumstances."""
    return replace(golden, circumstances=replace(HERE, **difference))


def heard(
    golden: GoldenAnswers,
    *,
    position: Alternatives | None = None,
    others: int = 0,
    tokens: tuple[int, ...] | None = None,
) -> GoldenAnswers:
    """``golden`` with ``others`` of its positions and all its tokens exchanged."""
    [answer] = golden.answers
    positions = answer.positions
    if position is not None:
        positions = (position,) * others + positions[others:]
    return replace(
        golden, answers=(replace(answer, positions=positions, tokens=tokens or answer.tokens),)
    )


def test_the_same_passes_the_strict_tolerance() -> None:
    comparison = compare(GOLDEN, GOLDEN)
    assert comparison.tolerance is SAME_HOST
    assert comparison.faults == ()


@pytest.mark.parametrize("difference", ["cpu", "libc"])
def test_another_host_is_judged_by_the_wider_tolerance(difference: str) -> None:
    assert compare(elsewhere(GOLDEN, **{difference: "x"}), GOLDEN).tolerance is OTHER_HOST


def test_another_build_of_the_engine_is_judged_by_the_wider_tolerance() -> None:
    other = elsewhere(GOLDEN, engine_digest=Digest.of(b"other"))
    assert compare(other, GOLDEN).tolerance is OTHER_HOST


def test_other_tokens_fail_on_the_same_host_alone() -> None:
    other = heard(GOLDEN, tokens=(1,) * 20)
    assert compare(GOLDEN, other).faults == ("other tokens on the same engine and kind of CPU",)
    assert compare(elsewhere(GOLDEN, cpu="x"), other).faults == ()


def test_one_near_tie_in_twenty_passes_on_another_host_and_two_do_not() -> None:
    recorded = elsewhere(heard(GOLDEN, position=likely(0.401, 0.4), others=20), cpu="x")
    swapped = ((1, round(math.log(0.401) * MICRONATS)), (0, round(math.log(0.4) * MICRONATS)))
    here = elsewhere(recorded, cpu="y")
    assert compare(recorded, heard(here, position=swapped, others=1)).faults == ()
    [fault] = compare(recorded, heard(here, position=swapped, others=2)).faults
    assert "90.0% of positions, not 95%" in fault


def test_probabilities_like_those_of_a_coarser_quantization_fail() -> None:
    coarser = heard(GOLDEN, position=likely(0.45, 0.33, 0.12), others=20)
    [fault] = compare(elsewhere(GOLDEN, cpu="x"), coarser).faults
    assert "the probabilities differ" in fault


@pytest.mark.parametrize("loss", [298, 302])
def test_a_perplexity_two_percent_off_fails(loss: int) -> None:
    other = replace(GOLDEN, passage=Passage("text", 100, loss * MICRONATS))
    [fault] = compare(elsewhere(GOLDEN, cpu="x"), other).faults
    assert "perplexity differs by 2.0" in fault or "perplexity differs by 1.98" in fault


def test_a_text_that_became_other_tokens_fails() -> None:
    other = replace(GOLDEN, passage=Passage("text", 99, 297 * MICRONATS))
    assert "perplexity" in compare(elsewhere(GOLDEN, cpu="x"), other).faults[0]


def test_impossible_probabilities_are_finite_and_fail() -> None:
    broken = heard(GOLDEN, position=((7, -1000 * MICRONATS),), others=20)
    comparison = compare(elsewhere(GOLDEN, cpu="x"), broken)
    assert math.isfinite(comparison.divergence)
    assert len(comparison.faults) == 2


distributions = st.lists(
    st.integers(min_value=-20 * MICRONATS, max_value=0), min_size=1, max_size=10
).map(lambda values: _normalised(sorted(values, reverse=True)))


def _normalised(values: list[int]) -> Alternatives:
    total = math.log(sum(math.exp(value / MICRONATS) for value in values) * 1.1)
    return tuple(
        (token, min(0, value - round(total * MICRONATS))) for token, value in enumerate(values)
    )


@given(distributions)
def test_a_distribution_does_not_diverge_from_itself(recorded: Alternatives) -> None:
    assert abs(divergence(recorded, recorded)) < 1e-9


@given(distributions, distributions)
def test_divergence_is_never_below_zero(recorded: Alternatives, other: Alternatives) -> None:
    padded = other + tuple((token, other[-1][1]) for token in range(len(other), len(recorded)))
    if sum(math.exp(logprob / MICRONATS) for _, logprob in padded[: len(recorded)]) <= 1:
        assert divergence(recorded, padded) > -1e-5
