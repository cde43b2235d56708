"""The engine with a LoRA adapter: applied, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.adapters import query_adapter
from support.checkpoints import LLAMA_CONFIG, REFERENCES, files_of

from packager.errors import EngineError, TruncatedError
from packager.progress import Silent
from packager.quantize.lora.convert import read_adapter, write_adapter
from packager.runtime.engine import Engine, EngineOptions
from packager.runtime.smoke import record_golden, smoke_test
from packager.runtime.vectors import embed


def convert(folder: Path, config: dict[str, object], out: Path) -> Path:
    adapter = read_adapter(files_of(folder), config)
    write_adapter(adapter, out, name="adapter", progress=Silent())
    return out


@pytest.fixture(scope="module")
def to_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference adapter to the reference BERT."""
    config = json.loads((REFERENCES / "bert" / "config.json").read_text(encoding="utf-8"))
    out = tmp_path_factory.mktemp("adapters") / "bert.gguf"
    return convert(REFERENCES / "adapters" / "bert", config, out)


@pytest.fixture
def to_llama(tmp_path: Path) -> Path:
    """An adapter to a llama of the width of the random model."""
    return convert(query_adapter(tmp_path / "s", width=256), LLAMA_CONFIG, tmp_path / "a.gguf")


def test_it_changes_the_answers_and_each_time_alike(random_model: Path, to_llama: Path) -> None:
    answers = []
    for adapter in (None, to_llama, to_llama):
        options = EngineOptions(measuring=True, adapter=adapter)
        with Engine(random_model, options) as engine:
            answers.append(engine.generate(engine.tokenize("In the beginning"), 12).tokens)
    assert answers[0] != answers[1] == answers[2]


def test_vectors_are_recorded_with_it_and_fail_without_it(encoder: Path, to_encoder: Path) -> None:
    golden = record_golden(
        encoder, prompts=["word"], max_tokens=1, adapter=to_encoder, progress=Silent()
    )
    assert smoke_test(encoder, golden, variant="v", adapter=to_encoder, progress=Silent()).ok
    assert not smoke_test(encoder, golden, variant="v", progress=Silent()).ok


def test_one_for_another_architecture_is_refused(random_model: Path, to_encoder: Path) -> None:
    with pytest.raises(EngineError, match=r"an adapter for 'bert', and random\.gguf is 'llama'"):
        Engine(random_model, EngineOptions(adapter=to_encoder))


def test_a_model_is_no_adapter_and_an_adapter_no_model(random_model: Path, to_llama: Path) -> None:
    with pytest.raises(EngineError, match=r"random\.gguf: not a LoRA adapter"):
        Engine(random_model, EngineOptions(adapter=random_model))
    with pytest.raises(EngineError, match="does not state its context_length"):
        Engine(to_llama)


def test_one_of_another_shape_is_refused_with_the_engine_s_words(
    random_model: Path, tmp_path: Path
) -> None:
    config = {**LLAMA_CONFIG, "hidden_size": 128}
    other = convert(query_adapter(tmp_path / "s", width=128), config, tmp_path / "a.gguf")
    with pytest.raises(EngineError, match="incorrect shape"):
        Engine(random_model, EngineOptions(adapter=other))


def test_a_truncated_one_is_refused_before_the_engine_sees_it(
    encoder: Path, to_encoder: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(to_encoder.read_bytes()[:-64])
    with pytest.raises(TruncatedError, match=r"short\.gguf"):
        embed(encoder, "word", options=EngineOptions(adapter=short))
