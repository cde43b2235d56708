"""Models that make vectors of texts: their goldens, what those tell apart, and the service."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.test_serve import ask
from runtime.test_smoke import elsewhere, flip_bytes
from support.checkpoints import REFERENCES, files_of
from support.watching import Watching

from packager.errors import EngineError, SmokeTestError
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.golden import (
    MILLIONTHS,
    Circumstances,
    Embedding,
    Golden,
    GoldenVectors,
    parse_golden,
)
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.engine import Engine, EngineOptions
from packager.runtime.model_file import read_model_file
from packager.runtime.serve import serve
from packager.runtime.smoke import record_golden, smoke_test
from packager.runtime.vectors import OTHER_HOST, SAME_HOST, compare_vectors, cosine, embed

PROMPTS = ("The capital of France is", "Once upon a time")
REFERENCE = json.loads((REFERENCES / "bert" / "reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden(encoder: Path) -> GoldenVectors:
    recorded = record_golden(encoder, prompts=PROMPTS, max_tokens=4, progress=Silent())
    assert isinstance(recorded, GoldenVectors)
    return recorded


def test_a_text_becomes_the_vector_that_transformers_makes(encoder: Path) -> None:
    vectors = [embed(encoder, text) for text in REFERENCE["texts"]]
    # ggml looks GELU up in a table of half precision.
    assert np.abs(np.array(vectors) - np.load(REFERENCES / "bert" / "reference.npy")).max() < 5e-4


def test_the_passage_is_recorded_beside_the_prompts_and_all_within_the_context(
    golden: GoldenVectors, encoder: Path
) -> None:
    assert golden.prompts[:2] == PROMPTS
    assert len(golden.embeddings) == 3
    with Engine(encoder) as engine:
        [first, *_, last] = engine.tokenize("word")
    for embedding in golden.embeddings:
        assert embedding.tokens[0] == first
        assert embedding.tokens[-1] == last
        assert len(embedding.tokens) <= golden.circumstances.context
        length = math.sqrt(sum(component**2 for component in embedding.vector))
        assert length == pytest.approx(MILLIONTHS, rel=1e-5)


def test_the_same_model_makes_the_same_vectors(encoder: Path, golden: GoldenVectors) -> None:
    watching = Watching()
    read = parse_golden(Fields.of(golden.encode(), "golden"))
    result = smoke_test(encoder, read, variant="f32", progress=watching)
    assert result.ok
    assert result.tokens_match
    assert result.cosine == pytest.approx(1.0, abs=1e-12)
    assert result.expected == result.actual
    assert len(result.actual.splitlines()) == 3
    assert result.perplexity is None
    assert result.perplexity_expected is None
    assert result.tokens_per_second > 0
    assert watching.notes == []
    assert [(task.done, task.total) for task in watching.tasks] == [(3, 3)]


def passes(model: Path, golden: Golden) -> bool:
    try:
        return smoke_test(model, golden, variant="v", progress=Silent()).ok
    except SmokeTestError:  # vectors of what are no numbers
        return False


@pytest.mark.parametrize("seed", range(3))
def test_2000_flipped_bytes_fail_here_and_elsewhere(
    encoder: Path, golden: GoldenVectors, tmp_path: Path, seed: int
) -> None:
    damaged = flip_bytes(encoder, tmp_path / "damaged.gguf", seed)
    assert not passes(damaged, golden)
    assert not passes(damaged, elsewhere(golden))


def test_another_quantization_of_the_same_model_is_another_file(
    golden: GoldenVectors, tmp_path: Path
) -> None:
    made = {}
    for kind in ("Q8_0", "Q4_K_M"):
        model = tmp_path / f"{kind}.gguf"
        quantize(files_of(REFERENCES / "bert"), kind, model, name="b", progress=Silent())
        made[kind] = passes(model, golden), passes(model, elsewhere(golden))
    assert made == {"Q8_0": (False, True), "Q4_K_M": (False, False)}


def test_answers_are_not_expected_of_it_nor_vectors_of_a_model_that_generates(
    encoder: Path, golden: GoldenVectors, demo_model: Path, demo_golden: Golden
) -> None:
    with pytest.raises(SmokeTestError):
        smoke_test(encoder, demo_golden, variant="v", progress=Silent())
    with pytest.raises(SmokeTestError):
        smoke_test(demo_model, golden, variant="v", progress=Silent())


def test_a_text_beyond_the_context_is_refused_and_the_next_is_read(encoder: Path) -> None:
    with Engine(encoder) as engine:
        with pytest.raises(EngineError, match="the model reads 160 at once") as refused:
            engine.embed(engine.tokenize("word " * 600))
        assert len(engine.embed(engine.tokenize("word"))) == 64
    assert refused.value.hint


def test_a_decoder_that_pools_makes_vectors_too(tmp_path: Path) -> None:
    files = dict(files_of(REFERENCES / "qwen3"))
    pooling = {"pooling_mode_lasttoken": True}
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    for name, document in (("modules.json", modules), ("1_Pooling/config.json", pooling)):
        files[name] = tmp_path / name.replace("/", "-")
        files[name].write_text(json.dumps(document))
    model = tmp_path / "model.gguf"
    quantize(files, "F32", model, name="q", progress=Silent())

    recorded = record_golden(model, prompts=PROMPTS, max_tokens=4, progress=Silent())

    assert isinstance(recorded, GoldenVectors)
    assert smoke_test(model, recorded, variant="v", progress=Silent()).ok


def test_the_same_decoder_without_pooling_answers(demo_model: Path) -> None:
    assert not read_model_file(demo_model).makes_vectors


def test_vectors_of_a_model_that_generates_can_be_asked_for(demo_model: Path) -> None:
    with Engine(demo_model, EngineOptions(context=64, pooling="mean")) as engine:
        assert engine.makes_vectors
        vector = engine.embed(engine.tokenize("In the beginning"))
    assert math.fsum(part**2 for part in vector) == pytest.approx(1.0, abs=1e-5)


def test_it_is_served_by_the_openai_route(encoder: Path) -> None:
    texts = REFERENCE["texts"]
    with serve(encoder, port=0, name="search") as service:
        status, answer = ask(service.url, "/v1/embeddings", {"input": texts})
        _, _, url, *_, data = shlex.split("x " + service.example)
        example_status, _ = ask(service.url, url.removeprefix(service.url), json.loads(data))
        no_answer, _ = ask(service.url, "/v1/completions", {"prompt": "Hello"})
    assert status == example_status == 200
    found = np.array([item["embedding"] for item in answer["data"]])  # type: ignore[attr-defined]
    assert np.abs(found - np.load(REFERENCES / "bert" / "reference.npy")).max() < 5e-4
    assert answer["model"] == "search"
    assert no_answer >= 400


@pytest.mark.parametrize(
    ("values", "said"),
    [({"bert.pooling_type": 4}, "ranks texts"), ({"bert.pooling_type": 0}, "how to pool")],
)
def test_what_makes_no_vector_of_a_text_is_refused(
    encoder: Path, values: Mapping[str, int], said: str, tmp_path: Path
) -> None:
    [(key, value)] = values.items()
    data = encoder.read_bytes()
    place = data.index(key.encode()) + len(key) + 4  # behind the key and the number of its type
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data[:place] + value.to_bytes(4, "little") + data[place + 4 :])
    with pytest.raises(EngineError, match=said):
        embed(changed, "word")


HERE = Circumstances("e", "1", Digest.of(b"e"), "cpu", "libc", 1, 512)


def of(*vectors: tuple[int, ...], tokens: tuple[int, ...] = (1,)) -> GoldenVectors:
    return GoldenVectors(HERE, tuple(Embedding("text", tokens, vector) for vector in vectors))


def test_the_vector_least_alike_decides() -> None:
    recorded = of((MILLIONTHS, 0), (0, MILLIONTHS))
    heard = of((MILLIONTHS, 0), (2000, MILLIONTHS))
    here = compare_vectors(recorded, heard)
    assert here.least == SAME_HOST
    assert here.cosine == pytest.approx(1 - 2e-6)
    assert "less than 0.999999999" in here.faults[0]
    there = compare_vectors(replace(recorded, circumstances=replace(HERE, cpu="x")), heard)
    assert there.least == OTHER_HOST
    assert there.faults == ()


def test_other_tokens_are_a_fault_whatever_the_vectors() -> None:
    other = compare_vectors(of((MILLIONTHS, 0)), of((MILLIONTHS, 0), tokens=(2,)))
    assert other.faults == ("the texts become other tokens",)


@pytest.mark.parametrize("strange", [(0, 0), (MILLIONTHS,), (0, 0, MILLIONTHS)])
def test_a_vector_without_direction_or_of_other_dimensions_is_a_fault(
    strange: tuple[int, ...],
) -> None:
    assert compare_vectors(of((MILLIONTHS, 0)), of(strange)).faults


vectors = st.lists(st.integers(-MILLIONTHS, MILLIONTHS), min_size=2, max_size=2).filter(any)


@given(vectors, vectors)
def test_a_cosine_is_between_minus_one_and_one_and_the_same_both_ways(
    one: list[int], other: list[int]
) -> None:
    assert -1 - 1e-12 <= cosine(one, other) <= 1 + 1e-12
    assert cosine(one, other) == pytest.approx(cosine(other, one))
    assert cosine(one, one) == pytest.approx(1.0, abs=1e-12)
