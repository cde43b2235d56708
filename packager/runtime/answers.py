"""How a model that generates answers: listened to, and two such hearings compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from packager.errors import UsageError
from packager.format.golden import (
    ALTERNATIVES,
    MICRONATS,
    Alternatives,
    Answer,
    GoldenAnswers,
    Passage,
)
from packager.progress import Task
from packager.runtime.engine import Engine

T = TypeVar("T")

MAX_SCORED = 128

# More than are recorded, so that a recorded token is found even where it lost some ranks.
_OBSERVED_ALTERNATIVES = 40
_LEAST_SHARE = 1e-12  # keeps a ratio of probabilities finite


@dataclass(frozen=True)
class Tolerance:
    """What may differ.

    ``tokens``: whether the generated tokens may. ``agreement``: the least part of positions
    whose likeliest token must be the recorded one. ``divergence``: the most nats of mean
    Kullback-Leibler divergence a position, over the recorded alternatives. ``perplexity``: the
    most relative change.
    """

    tokens: bool
    agreement: float
    divergence: float
    perplexity: float


# The same build on the same kind of CPU repeats itself to the last bit.
SAME_HOST = Tolerance(tokens=False, agreement=1.0, divergence=1e-8, perplexity=1e-5)
# Between CPUs and builds: agreement >= 0.984 and about 3e-5 nats were measured with the same
# file; quantizing to 4 bits costs a hundred times that.
OTHER_HOST = Tolerance(tokens=True, agreement=0.95, divergence=1e-3, perplexity=1e-2)


@dataclass(frozen=True)
class HeardAnswers:
    """What the engine said. Positions are those along the recorded tokens, if there are any."""

    answers: tuple[Answer, ...]
    passage: Passage
    tokens_per_second: float


@dataclass(frozen=True)
class Comparison:
    """How far what was heard is from what was recorded, and what may differ between the two."""

    tolerance: Tolerance
    tokens_match: bool
    agreement: float
    divergence: float
    perplexity_change: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What is outside the tolerance, in words; empty if all is well."""
        allowed = self.tolerance
        faults = []
        if not (self.tokens_match or allowed.tokens):
            faults.append("other tokens on the same engine and kind of CPU")
        # Written so that NaN, which compares false, is a fault.
        if not self.agreement >= allowed.agreement:
            faults.append(
                f"the recorded token is the likeliest at {self.agreement:.1%} of positions, "
                f"not {allowed.agreement:.0%}"
            )
        if not self.divergence <= allowed.divergence:
            faults.append(
                f"the probabilities differ by {self.divergence:.2g} nats a token, "
                f"more than {allowed.divergence:.0e}"
            )
        if not self.perplexity_change <= allowed.perplexity:
            faults.append(
                f"the perplexity differs by {self.perplexity_change:.3%}, "
                f"more than {allowed.perplexity:.3%}"
            )
        return tuple(faults)


def hear_answers(
    engine: Engine,
    prompts: Sequence[str],
    max_tokens: int,
    passage: str,
    expected: Sequence[tuple[int, ...]],
    task: Task,
) -> HeardAnswers:
    """Let the engine answer ``prompts`` and read ``passage``.

    Positions are taken along ``expected``, one sequence a prompt, or along its own answers.
    ``task`` counts tokens: at most twice ``max_tokens`` a prompt, and those of the passage.
    Raises ``UsageError`` for a passage too short to measure.
    """
    answers = []
    seconds = 0.0
    decoded = 0
    for index, prompt in enumerate(prompts):
        tokens = engine.tokenize(prompt)
        generation = engine.generate(tokens, max_tokens)
        task.advance(max_tokens)
        seconds += generation.seconds
        decoded += len(generation.tokens) - 1  # the first comes with the prompt
        along = expected[index] if expected else generation.tokens
        count = _OBSERVED_ALTERNATIVES if expected else ALTERNATIVES
        positions = tuple(_counted(engine.follow(tokens, along, count), task))
        task.advance(max_tokens - len(along))
        answers.append(Answer(prompt, generation.tokens, generation.text, positions))
    return HeardAnswers(
        answers=tuple(answers),
        passage=_read(engine, passage, task),
        tokens_per_second=decoded / seconds if seconds > 0 else 0.0,
    )


def compare(recorded: GoldenAnswers, heard: GoldenAnswers) -> Comparison:
    """Judge ``heard``, whose positions are those along the recorded tokens."""
    pairs = [
        (was, now)
        for old, new in zip(recorded.answers, heard.answers, strict=True)
        for was, now in zip(old.positions, new.positions, strict=True)
    ]
    return Comparison(
        tolerance=SAME_HOST if recorded.circumstances.is_like(heard.circumstances) else OTHER_HOST,
        tokens_match=all(
            old.tokens == new.tokens
            for old, new in zip(recorded.answers, heard.answers, strict=True)
        ),
        agreement=sum(was[0][0] == now[0][0] for was, now in pairs) / len(pairs),
        divergence=sum(divergence(was, now) for was, now in pairs) / len(pairs),
        perplexity_change=_relative_change(recorded.passage, heard.passage),
    )


def divergence(recorded: Alternatives, heard: Alternatives) -> float:
    """Kullback-Leibler divergence in nats, over the recorded tokens and all the others as one.

    A recorded token that is no longer among those heard counts as the least likely of them.
    The sum over a coarser partition is a lower bound of the divergence.
    """
    found = dict(heard)
    least = heard[-1][1]
    shares = [(_share(logprob), _share(found.get(token, least))) for token, logprob in recorded]
    others = (_rest(p for p, _ in shares), _rest(q for _, q in shares))
    return sum(p * math.log(p / q) for p, q in (*shares, others))


def _rest(shares: Iterable[float]) -> float:
    return max(_LEAST_SHARE, 1 - sum(shares))


def _share(logprob: int) -> float:
    return max(_LEAST_SHARE, math.exp(logprob / MICRONATS))


def _relative_change(recorded: Passage, heard: Passage) -> float:
    if recorded.scored != heard.scored:  # the text became other tokens
        return math.inf
    return abs(heard.perplexity - recorded.perplexity) / recorded.perplexity


def _read(engine: Engine, text: str, task: Task) -> Passage:
    tokens = engine.tokenize(text)[: MAX_SCORED + 1]
    logprobs = [lp for lp in _counted(engine.losses(tokens), task) if lp is not None]
    if not logprobs:
        raise UsageError("smoke: text: too short to measure a perplexity with")
    return Passage(text, len(logprobs), -sum(logprobs))


def _counted(items: Iterator[T], task: Task) -> Iterator[T]:
    for item in items:
        task.advance(1)
        yield item
