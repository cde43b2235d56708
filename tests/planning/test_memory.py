"""What a model takes of a host's memory, beside what the engine itself says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES, files_of

from packager.connected.variants.memory import memory_of
from packager.errors import MalformedError
from packager.format.fields import Fields
from packager.format.gguf_header import GgufHeader
from packager.format.memory import MemoryNeed
from packager.planning.memory import memory_need
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.environment import worker_environment

PROBE = Path(__file__).parents[1] / "support" / "memory_probe.py"
MIB = 1 << 20
PROCESS = 96 * MIB


@pytest.mark.parametrize(
    "family",
    ["gemma2", "gemma3", "gpt-oss", "llama3", "mixtral", "nomic-bert", "olmo3", "phi3", "qwen3"],
)
def test_it_is_what_the_engine_takes(family: str, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    quantize(files_of(REFERENCES / family), "F16", model, name=family, progress=Silent())
    need = memory_of(model)
    assert need is not None

    done = subprocess.run(
        [sys.executable, str(PROBE), str(model), str(need.context)],
        env=worker_environment(os.environ, prefix=Path(sys.prefix), libraries=None),
        capture_output=True,
        check=True,
        timeout=60,
    )

    engine = json.loads(done.stdout)
    assert need.cache == pytest.approx(engine["cache"], abs=MIB / 50)
    assert engine["buffers"] <= need.buffers - PROCESS <= 2 * engine["buffers"] + MIB


def header(architecture: str, **values: object) -> GgufHeader:
    metadata = {f"{architecture}.{key.replace('__', '.')}": v for key, v in values.items()}
    return GgufHeader(3, {"general.architecture": architecture, **metadata}, (), 0)


def test_a_model_of_billions_is_told_in_the_engines_own_figures() -> None:
    """Llama 3 8B at 8192 tokens: llama.cpp reports a KV cache of 1024 MiB, buffers of 258.50."""
    llama3 = header(
        "llama", block_count=32, embedding_length=4096, feed_forward_length=14336,
        attention__head_count=32, attention__head_count_kv=8, vocab_size=128_256,
    )  # fmt: skip

    need = memory_need(llama3, 8192, makes_vectors=False)

    assert need.cache == 1024 * MIB
    assert 258.5 * MIB < need.buffers - PROCESS < 450 * MIB


@pytest.mark.parametrize("missing", ["block_count", "embedding_length", "attention__head_count"])
def test_a_header_that_lacks_what_it_follows_from_is_not_guessed_at(missing: str) -> None:
    values = {"block_count": 2, "embedding_length": 64, "attention__head_count": 4}
    del values[missing]
    with pytest.raises(MalformedError, match=missing.replace("__", ".")):
        memory_need(header("llama", **values), 512, makes_vectors=False)


def test_a_model_with_a_state_instead_of_a_cache_is_not_guessed_at() -> None:
    mamba = header(
        "mamba", block_count=2, embedding_length=64, attention__head_count=0, ssm__state_size=16
    )
    with pytest.raises(MalformedError, match="state"):
        memory_need(mamba, 512, makes_vectors=False)


def test_it_is_read_as_it_was_written() -> None:
    need = MemoryNeed(context=4096, cache=1 << 30, buffers=3 << 28)
    assert MemoryNeed.parse(Fields.of(need.encode(), "memory")) == need
