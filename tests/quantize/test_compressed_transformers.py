"""transformers loads the variants, and answers nearly as from the original.

Only where torch, transformers and compressed-tensors are installed; what does not need them is in
the other tests of compressed-tensors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES
from support.random_checkpoints import write_random

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "packager" / "demo" / "tiny-kjv"
# Mean divergence of the demo model's probabilities, in nats: twice what was measured.
LARGEST_DIVERGENCE = {"FP8_DYNAMIC": 0.0037, "W8A8": 0.0012, "W8A16": 0.0001, "W4A16": 0.026}


def check(*checkpoints: Path) -> list[dict[str, object]]:
    """What the script, which fails where a tensor is missing or unexpected, says of each."""
    script = ROOT / "scripts" / "check_compressed_tensors.py"
    answer = subprocess.run(
        [sys.executable, str(script), "--json", *map(str, checkpoints)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_the_demo_model_answers_nearly_as_from_the_original() -> None:
    results = check(DEMO)

    assert len(results) == 8
    for result in results:
        assert float(str(result["kl"])) <= LARGEST_DIVERGENCE[str(result["scheme"])]
        assert float(str(result["same_first"])) >= 0.9


@pytest.mark.sweep
def test_every_family_loads_whole_and_answers_alike() -> None:
    families = [
        "bert", "gemma2", "gemma3", "granite", "granite-moe", "granite4", "llama3",
        "ministral", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "phi4-mini",
        "qwen2", "qwen3", "qwen3-moe", "smollm3", "xlm-roberta",
    ]  # fmt: skip

    results = check(*(REFERENCES / family for family in families))

    assert {result["model"] for result in results if "widened" in result} == set(families)
    for result in results:
        # Random weights as large as these make the most of every error.
        largest = 0.1 if result["scheme"] == "W4A16" else 0.05
        assert float(str(result.get("kl", 0))) < largest
        assert float(str(result.get("cosine", 1))) > 0.998


@pytest.mark.sweep
@pytest.mark.parametrize("family", ["mixtral", "qwen3-moe", "phi3", "gemma3"])
def test_packed_weights_of_a_family_load_whole_and_answer_alike(
    family: str, tmp_path: Path
) -> None:
    """As wide as groups of 128 need."""
    model = write_random(
        tmp_path / family,
        family,
        hidden_size=256,
        intermediate_size=256,
        moe_intermediate_size=128,
        head_dim=64,
    )

    results = [result for result in check(model) if "widened" in result]

    assert {"W8A16", "W4A16"} <= {result["scheme"] for result in results}
    for result in results:
        assert float(str(result["kl"])) < (0.3 if result["scheme"] == "W4A16" else 0.05)
