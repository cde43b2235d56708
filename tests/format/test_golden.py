from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.golden import (
    LEAST_LOGPROB,
    MAX_ALTERNATIVES,
    MAX_ANSWERS,
    MAX_DIMENSIONS,
    MAX_SCORED,
    MAX_TEXT_CHARACTERS,
    MAX_TOKEN,
    MAX_VECTORS,
    MICRONATS,
    MILLIONTHS,
    Answer,
    Circumstances,
    Embedding,
    Golden,
    GoldenAnswers,
    GoldenVectors,
    Passage,
    parse_golden,
)

CIRCUMSTANCES = Circumstances(
    engine="xllamacpp",
    engine_version="2026.10.1",
    engine_digest=Digest.of(b"engine"),
    cpu="x86_64, AMD EPYC, avx2",
    libc="glibc 2.36",
    threads=2,
    context=512,
)
GOLDEN = GoldenAnswers(
    CIRCUMSTANCES,
    answers=(Answer("In the", (5, 7), " end", (((5, -10), (6, -20)), ((7, 0),))),),
    passage=Passage("It was", 2, 3 * MICRONATS),
)
VECTORS = GoldenVectors(
    CIRCUMSTANCES,
    (Embedding("In the", (2, 5, 3), (600_000, -800_000)), Embedding("", (2, 3), (0, MILLIONTHS))),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
tokens = st.integers(0, MAX_TOKEN)
alternatives = st.lists(
    st.tuples(tokens, st.integers(LEAST_LOGPROB, 0)), min_size=1, max_size=12
).map(tuple)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    count = draw(st.integers(1, 6))
    return Answer(
        prompt=draw(texts),
        tokens=tuple(draw(st.lists(tokens, min_size=count, max_size=count))),
        text=draw(texts),
        positions=tuple(draw(st.lists(alternatives, min_size=count, max_size=count))),
    )


@st.composite
def vectors(draw: st.DrawFn) -> tuple[Embedding, ...]:
    dimensions = draw(st.integers(1, 6))
    components = st.integers(-MILLIONTHS, MILLIONTHS)
    embedding = st.builds(
        Embedding,
        text=texts,
        tokens=st.lists(tokens, min_size=1, max_size=6).map(tuple),
        vector=st.lists(components, min_size=dimensions, max_size=dimensions).map(tuple),
    )
    return tuple(draw(st.lists(embedding, min_size=1, max_size=3)))


circumstances = st.builds(
    Circumstances,
    engine=names,
    engine_version=names,
    engine_digest=st.binary().map(Digest.of),
    cpu=names,
    libc=names,
    threads=st.integers(1, 512),
    context=st.integers(1, 1 << 20),
)
goldens = st.builds(
    GoldenAnswers,
    circumstances,
    answers=st.lists(answers(), min_size=1, max_size=3).map(tuple),
    passage=st.builds(
        Passage, text=texts, scored=st.integers(1, MAX_SCORED), loss=st.integers(0, 10**9)
    ),
) | st.builds(GoldenVectors, circumstances, vectors())


def parse(document: object) -> Golden:
    return parse_golden(Fields.of(document, "golden"))


@given(goldens)
def test_what_is_written_is_what_is_read(golden: Golden) -> None:
    data = canonical.encode(golden.encode())
    assert parse(canonical.decode(data, what="golden", max_size=len(data))) == golden


def test_perplexity_is_e_to_the_mean_loss() -> None:
    assert GOLDEN.passage.perplexity == pytest.approx(4.4816890703)


def test_a_hopeless_perplexity_is_still_a_number() -> None:
    assert Passage("x", 1, 1000 * MICRONATS).perplexity < float("inf")


def set_at(document: Any, path: tuple[str | int, ...], value: object) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("surprise",), 1),
        (("engine",), ""),
        (("engine_digest",), "sha1:abc"),
        (("threads",), 0),
        (("context",), 1 << 30),
        (("answers",), []),
        (("answers",), [{}] * (MAX_ANSWERS + 1)),
        (("answers", 0, "prompt"), None),
        (("answers", 0, "text"), "x" * (MAX_TEXT_CHARACTERS + 1)),
        (("answers", 0, "tokens"), []),
        (("answers", 0, "positions_micronats"), [[[5, -10]]]),
        (("answers", 0, "tokens"), [5, -1]),
        (("answers", 0, "tokens"), [5, MAX_TOKEN + 1]),
        (("answers", 0, "tokens"), [5, True]),
        (("answers", 0, "tokens"), [5, "7"]),
        (("answers", 0, "positions_micronats", 0), []),
        (("answers", 0, "positions_micronats", 0), [[5, -1]] * (MAX_ALTERNATIVES + 1)),
        (("answers", 0, "positions_micronats", 0), [[5]]),
        (("answers", 0, "positions_micronats", 0), [[5, 1]]),
        (("answers", 0, "positions_micronats", 0), [[5, LEAST_LOGPROB - 1]]),
        (("answers", 0, "positions_micronats", 0), {"5": -1}),
        (("passage", "scored"), 0),
        (("passage", "scored"), MAX_SCORED + 1),
        (("passage", "loss_micronats"), -1),
        (("passage", "loss_micronats"), 2001 * MICRONATS),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_place(
    path: tuple[str | int, ...], value: object
) -> None:
    document: Any = deepcopy(GOLDEN.encode())
    set_at(document, path, value)
    last = next(step for step in reversed(path) if isinstance(step, str))
    with pytest.raises(MalformedError, match=rf"golden.*{last}"):
        parse(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("surprise",), 1),
        (("answers",), []),
        (("passage",), {}),
        (("vectors",), []),
        (("vectors",), [{}] * (MAX_VECTORS + 1)),
        (("vectors",), VECTORS.encode()["vectors"] + [{}]),  # type: ignore[operator]
        (("vectors", 0, "surprise"), 1),
        (("vectors", 0, "text"), None),
        (("vectors", 0, "tokens"), []),
        (("vectors", 0, "tokens"), [MAX_TOKEN + 1]),
        (("vectors", 0, "vector_millionths"), []),
        (("vectors", 0, "vector_millionths"), [0] * (MAX_DIMENSIONS + 1)),
        (("vectors", 0, "vector_millionths"), [MILLIONTHS + 1, 0]),
        (("vectors", 0, "vector_millionths"), [0, -MILLIONTHS - 1]),
        (("vectors", 0, "vector_millionths"), [0.5, 0.5]),
        (("vectors", 0, "vector_millionths"), [1, 2, 3]),
    ],
)
def test_vectors_out_of_bounds_are_refused(path: tuple[str | int, ...], value: object) -> None:
    document: Any = deepcopy(VECTORS.encode())
    set_at(document, path, value)
    with pytest.raises(MalformedError, match="golden"):
        parse(document)
