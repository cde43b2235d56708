"""llama.cpp computes from our file what transformers computes from the source.

The checkpoints and transformers' answers are made by scripts/make_reference_checkpoints.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of
from support.probes import ask_probe, log_softmax

from packager.progress import Silent
from packager.quantize.pipeline import quantize

# How far a log-probability may be off, relative to the largest.
ROUNDING = 1e-5
# ggml looks GELU up in a table of half precision.
HALF_PRECISION = 5e-4
TOLERANCES = {
    "gemma2": HALF_PRECISION,
    "gemma3": HALF_PRECISION,
    "gpt-oss": ROUNDING,
    "gpt-oss-bf16": ROUNDING,
    "granite": ROUNDING,
    "granite-moe": ROUNDING,
    "granite4": ROUNDING,
    "llama-gpt2": ROUNDING,
    "llama2": ROUNDING,
    "llama3": ROUNDING,
    "ministral": ROUNDING,
    "ministral3": ROUNDING,
    "mistral": ROUNDING,
    "mixtral": ROUNDING,
    "olmo2": ROUNDING,
    "olmo3": ROUNDING,
    "phi3": ROUNDING,
    "phi4-mini": ROUNDING,
    "qwen2": ROUNDING,
    "qwen3": ROUNDING,
    "qwen3-moe": ROUNDING,
    "smollm3": ROUNDING,
}


def ask_engine(model: Path, text: str, prompts: list[list[int]], vocabulary: int) -> dict:
    request = {"model": str(model), "text": text, "prompts": prompts, "vocabulary": vocabulary}
    return ask_probe("engine_probe.py", request)


@pytest.mark.parametrize("family", TOLERANCES)
def test_the_f32_file_gives_the_logits_and_tokens_of_transformers(
    family: str, tmp_path: Path
) -> None:
    folder = REFERENCES / family
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    expected = log_softmax(np.load(folder / "reference.npy").astype(np.float64))
    out = tmp_path / "model.gguf"
    quantize(files_of(folder), "F32", out, name=family, progress=Silent())
    prompts = [reference["tokens"][: position + 1] for position in reference["positions"]]

    answer = ask_engine(out, reference["text"], prompts, expected.shape[1])

    assert answer["tokens"] == reference["tokens"]
    found = np.array(answer["logprobs"])
    assert np.abs(found - expected).max() / np.abs(expected).max() < TOLERANCES[family]
    divergence = (np.exp(expected) * (expected - found)).sum(axis=1)
    assert divergence.max() < 1e-5


@pytest.mark.parametrize("lacking", ["tokenizer.model", "tokenizer.json"])
def test_llama2_without_one_of_its_tokenizers_gives_the_same_tokens(
    lacking: str, tmp_path: Path
) -> None:
    folder = REFERENCES / "llama2"
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    files = files_of(folder)
    del files[lacking]
    out = tmp_path / "model.gguf"
    quantize(files, "Q8_0", out, name="llama2", progress=Silent())

    assert ask_engine(out, reference["text"], [], 0)["tokens"] == reference["tokens"]
