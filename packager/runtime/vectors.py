"""How a model makes vectors of texts: listened to, and two such hearings compared."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.format.golden import MAX_TOKENS, MILLIONTHS, Embedding, GoldenVectors
from packager.progress import Task
from packager.runtime.engine import Engine, EngineOptions

# The same build on the same kind of CPU repeats itself to the last bit; this is its rounding.
SAME_HOST = 1 - 1e-9
# Between CPUs and builds; quantizing to 4 bits costs more with the same source.
OTHER_HOST = 0.999
"""The least cosine of the angle between a recorded vector and the one made here."""

_SHOWN = 8  # components


@dataclass(frozen=True)
class HeardVectors:
    """What the engine made of the texts."""

    embeddings: tuple[Embedding, ...]
    tokens_per_second: float


@dataclass(frozen=True)
class VectorComparison:
    """``cosine`` is that of the two vectors least alike, ``least`` what it must be."""

    tokens_match: bool
    cosine: float
    least: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What is outside the tolerance, in words; empty if all is well."""
        faults = []
        if not self.tokens_match:
            faults.append("the texts become other tokens")
        if not self.cosine >= self.least:
            faults.append(
                f"a vector has a cosine of {self.cosine:.9f} with the recorded one, "
                f"less than {self.least:.9g}"
            )
        return tuple(faults)


def embed(model: Path, text: str, *, options: EngineOptions | None = None) -> tuple[float, ...]:
    """The vector, of length 1, that ``model`` makes of ``text``.

    Raises what opening an :class:`Engine` and asking it raise.
    """
    with Engine(model, options) as engine:
        return engine.embed(engine.tokenize(text))


def hear_vectors(engine: Engine, texts: Sequence[str], task: Task) -> HeardVectors:
    """Let the engine make a vector of each of ``texts``; ``task`` counts them."""
    embeddings = []
    seconds = 0.0
    for text in texts:
        tokens = _cut(engine.tokenize(text), min(engine.context, MAX_TOKENS))
        started = time.monotonic()
        vector = engine.embed(tokens)
        seconds += time.monotonic() - started
        components = tuple(round(component * MILLIONTHS) for component in vector)
        embeddings.append(Embedding(text, tokens, components))
        task.advance(1)
    count = sum(len(embedding.tokens) for embedding in embeddings)
    return HeardVectors(tuple(embeddings), count / seconds if seconds > 0 else 0.0)


def compare_vectors(recorded: GoldenVectors, heard: GoldenVectors) -> VectorComparison:
    """Judge ``heard``, which is of the same texts."""
    pairs = list(zip(recorded.embeddings, heard.embeddings, strict=True))
    alike = recorded.circumstances.is_like(heard.circumstances)
    return VectorComparison(
        tokens_match=all(was.tokens == now.tokens for was, now in pairs),
        cosine=min(cosine(was.vector, now.vector) for was, now in pairs),
        least=SAME_HOST if alike else OTHER_HOST,
    )


def cosine(one: Sequence[int], other: Sequence[int]) -> float:
    """Of the angle between two vectors; 0 where one has no direction, or other dimensions."""
    if len(one) != len(other):
        return 0.0
    squares = sum(part * part for part in one) * sum(part * part for part in other)
    product = sum(part * opposite for part, opposite in zip(one, other, strict=True))
    return product / math.sqrt(squares) if squares else 0.0


def first_components(embeddings: Sequence[Embedding]) -> str:
    """The beginning of each vector, a line each."""
    return "\n".join(
        " ".join(f"{component / MILLIONTHS:.6f}" for component in embedding.vector[:_SHOWN])
        for embedding in embeddings
    )


def _cut(tokens: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most ``most`` tokens, the last of them that which the model wants at the end."""
    return tokens if len(tokens) <= most else (*tokens[: most - 1], tokens[-1])
