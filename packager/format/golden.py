"""Golden outputs: how a variant answered at the build, so that a host can tell it still does.

A model that generates has answers, one that makes vectors of texts has vectors. Nothing here is
a float, since the index is canonical JSON: a log-probability is an integer in micronats
(millionths of a nat), never above zero, and a component of a vector is one in millionths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

MICRONATS = 1_000_000
MILLIONTHS = 1_000_000
ALTERNATIVES = 10

MAX_ANSWERS = 64
MAX_VECTORS = MAX_ANSWERS + 1
MAX_DIMENSIONS = 1 << 14
MAX_TOKENS = 4096
MAX_ALTERNATIVES = 64
MAX_TOKEN = 1 << 24
MAX_TEXT_CHARACTERS = 1 << 16
MAX_SCORED = 4096
MAX_THREADS = 1 << 12
MAX_CONTEXT = 1 << 20
# An engine states "impossible" as minus infinity, or as the lowest float; kept finite here.
LEAST_LOGPROB = -1000 * MICRONATS
_MOST_MEAN_LOSS = 700.0  # nats; e to the 710th is beyond a double

Alternatives = tuple[tuple[int, int], ...]
"""What could stand at one position, likeliest first: (token id, logprob in micronats)."""


@dataclass(frozen=True)
class Answer:
    """One prompt continued greedily.

    ``text`` is what ``tokens`` decode to. ``positions`` holds, for each of ``tokens``, the
    likeliest tokens there, given the prompt and the tokens before it.
    """

    prompt: str
    tokens: tuple[int, ...]
    text: str
    positions: tuple[Alternatives, ...]


@dataclass(frozen=True)
class Passage:
    """A short text as the model reads it: ``loss`` in micronats over ``scored`` of its tokens."""

    text: str
    scored: int
    loss: int

    @property
    def perplexity(self) -> float:
        """e to the mean loss of a token, short of infinity."""
        return math.exp(min(_MOST_MEAN_LOSS, self.loss / MICRONATS / self.scored))


@dataclass(frozen=True)
class Embedding:
    """What became of one text: its tokens, and its vector of length 1, in millionths."""

    text: str
    tokens: tuple[int, ...]
    vector: tuple[int, ...]


@dataclass(frozen=True)
class Circumstances:
    """The engine and the host that something was recorded with.

    ``engine_digest`` is that of the engine's shared object. ``cpu`` and ``libc`` name what the
    arithmetic depends on besides; ``threads`` and ``context`` (tokens) are how it was run.
    """

    engine: str
    engine_version: str
    engine_digest: Digest
    cpu: str
    libc: str
    threads: int
    context: int

    def is_like(self, other: Circumstances) -> bool:
        """Whether it is the same engine on the same kind of host, which repeats itself."""
        return (self.engine_digest, self.cpu, self.libc) == (
            other.engine_digest,
            other.cpu,
            other.libc,
        )

    def encode(self) -> dict[str, Json]:
        """The members of a golden's document that :meth:`parse` reads."""
        return {
            "engine": self.engine,
            "engine_version": self.engine_version,
            "engine_digest": self.engine_digest.hex,
            "cpu": self.cpu,
            "libc": self.libc,
            "threads": self.threads,
            "context": self.context,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Circumstances:
        """Read them; raises what ``fields`` raises for anything out of bounds."""
        return cls(
            engine=fields.text("engine"),
            engine_version=fields.text("engine_version"),
            engine_digest=fields.digest("engine_digest"),
            cpu=fields.text("cpu"),
            libc=fields.text("libc"),
            threads=fields.integer("threads", least=1, most=MAX_THREADS),
            context=fields.integer("context", least=1, most=MAX_CONTEXT),
        )


@dataclass(frozen=True)
class GoldenAnswers:
    """How a variant that generates answered, and how it read a passage."""

    circumstances: Circumstances
    answers: tuple[Answer, ...]
    passage: Passage

    @property
    def prompts(self) -> tuple[str, ...]:
        """What was continued."""
        return tuple(answer.prompt for answer in self.answers)

    def encode(self) -> dict[str, Json]:
        """The document that :func:`parse_golden` reads, with ``answers`` and ``passage``."""
        return self.circumstances.encode() | {
            "answers": [_answer_json(answer) for answer in self.answers],
            "passage": {
                "text": self.passage.text,
                "scored": self.passage.scored,
                "loss_micronats": self.passage.loss,
            },
        }


@dataclass(frozen=True)
class GoldenVectors:
    """The vectors that a variant made of texts, all of one number of dimensions."""

    circumstances: Circumstances
    embeddings: tuple[Embedding, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(embedding.text for embedding in self.embeddings)

    def encode(self) -> dict[str, Json]:
        """The document that :func:`parse_golden` reads, with ``vectors``."""
        return self.circumstances.encode() | {
            "vectors": [_embedding_json(embedding) for embedding in self.embeddings]
        }


Golden = GoldenAnswers | GoldenVectors
"""Everything recorded of one variant."""


def parse_golden(fields: Fields) -> Golden:
    """Read one of either kind; raises what ``fields`` raises for anything out of bounds."""
    return _parse_vectors(fields) if fields.has("vectors") else _parse_answers(fields)


_CIRCUMSTANCES = (
    "engine", "engine_version", "engine_digest", "cpu", "libc", "threads", "context",
)  # fmt: skip


def _parse_answers(fields: Fields) -> GoldenAnswers:
    fields.only(*_CIRCUMSTANCES, "answers", "passage")
    _list(fields, "answers", least=1, most=MAX_ANSWERS)
    return GoldenAnswers(
        Circumstances.parse(fields),
        answers=fields.each("answers", _parse_answer),
        passage=_parse_passage(fields.mapping("passage")),
    )


def _parse_vectors(fields: Fields) -> GoldenVectors:
    fields.only(*_CIRCUMSTANCES, "vectors")
    _list(fields, "vectors", least=1, most=MAX_VECTORS)
    embeddings = fields.each("vectors", _parse_embedding)
    if len({len(embedding.vector) for embedding in embeddings}) > 1:
        raise fields.refuse("vectors", "not all of one number of dimensions")
    return GoldenVectors(Circumstances.parse(fields), embeddings)


def _embedding_json(embedding: Embedding) -> Json:
    return {
        "text": embedding.text,
        "tokens": list(embedding.tokens),
        "vector_millionths": list(embedding.vector),
    }


def _answer_json(answer: Answer) -> Json:
    positions: list[Json] = [
        [[token, logprob] for token, logprob in alternatives] for alternatives in answer.positions
    ]
    return {
        "prompt": answer.prompt,
        "tokens": list(answer.tokens),
        "text": answer.text,
        "positions_micronats": positions,
    }


def _parse_answer(fields: Fields) -> Answer:
    fields.only("prompt", "tokens", "text", "positions_micronats")
    tokens = _list(fields, "tokens", least=1, most=MAX_TOKENS)
    positions = _list(fields, "positions_micronats", least=len(tokens), most=len(tokens))
    return Answer(
        prompt=_text(fields, "prompt"),
        tokens=tuple(_integer(fields, "tokens", token, 0, MAX_TOKEN) for token in tokens),
        text=_text(fields, "text"),
        positions=tuple(_parse_position(fields, position) for position in positions),
    )


def _parse_position(fields: Fields, position: object) -> Alternatives:
    key = "positions_micronats"
    if not isinstance(position, list) or not 0 < len(position) <= MAX_ALTERNATIVES:
        raise fields.refuse(key, f"not lists of 1 to {MAX_ALTERNATIVES} alternatives")
    alternatives = []
    for pair in position:
        if not isinstance(pair, list) or len(pair) != 2:
            raise fields.refuse(key, "an alternative is not [token, logprob]")
        alternatives.append(
            (
                _integer(fields, key, pair[0], 0, MAX_TOKEN),
                _integer(fields, key, pair[1], LEAST_LOGPROB, 0),
            )
        )
    return tuple(alternatives)


def _parse_passage(fields: Fields) -> Passage:
    fields.only("text", "scored", "loss_micronats")
    scored = fields.integer("scored", least=1, most=MAX_SCORED)
    return Passage(
        text=_text(fields, "text"),
        scored=scored,
        loss=fields.integer("loss_micronats", most=scored * -LEAST_LOGPROB),
    )


def _parse_embedding(fields: Fields) -> Embedding:
    fields.only("text", "tokens", "vector_millionths")
    tokens = _list(fields, "tokens", least=1, most=MAX_TOKENS)
    vector = _list(fields, "vector_millionths", least=1, most=MAX_DIMENSIONS)
    return Embedding(
        text=_text(fields, "text"),
        tokens=tuple(_integer(fields, "tokens", token, 0, MAX_TOKEN) for token in tokens),
        vector=tuple(
            _integer(fields, "vector_millionths", component, -MILLIONTHS, MILLIONTHS)
            for component in vector
        ),
    )


def _text(fields: Fields, key: str) -> str:
    """Text that may be empty: a model may have nothing to say."""
    value = fields.values.get(key)
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise fields.refuse(key, f"not text of at most {MAX_TEXT_CHARACTERS} characters")
    return value


def _list(fields: Fields, key: str, *, least: int, most: int) -> list[object]:
    items = fields.items(key)
    if not least <= len(items) <= most:
        raise fields.refuse(key, f"{len(items)} entries, not {least} to {most}")
    return items


def _integer(fields: Fields, key: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise fields.refuse(key, f"holds {str(value)[:40]!r}, not {least} to {most}")
    return value
