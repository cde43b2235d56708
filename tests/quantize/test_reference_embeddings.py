"""llama.cpp makes of a text, with our file, the vector that transformers makes with the source.

The checkpoints and transformers' answers are made by scripts/make_reference_checkpoints.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of
from support.probes import ask_probe
from support.watching import Watching

from packager.errors import UsageError
from packager.progress import Silent
from packager.quantize.pipeline import quantize

# How far an element of a unit vector may be off.
ROUNDING = 1e-6
# ggml looks GELU up in a table of half precision.
HALF_PRECISION = 5e-4
TOLERANCES = {
    "bert": HALF_PRECISION,
    "bert-cased": HALF_PRECISION,
    "nomic-bert": ROUNDING,
    "xlm-roberta": HALF_PRECISION,
}


@pytest.mark.parametrize("family", TOLERANCES)
def test_the_f32_file_gives_the_vectors_and_tokens_of_transformers(
    family: str, tmp_path: Path
) -> None:
    folder = REFERENCES / family
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    out = tmp_path / "model.gguf"
    quantize(files_of(folder), "F32", out, name=family, progress=Silent())

    answer = ask_probe("embedding_probe.py", {"model": str(out), "texts": reference["texts"]})

    assert answer["tokens"] == reference["tokens"]
    error = np.abs(np.array(answer["vectors"]) - np.load(folder / "reference.npy")).max()
    assert error < TOLERANCES[family]


def test_an_encoder_that_does_not_say_how_to_pool_gets_the_mean_and_a_note(tmp_path: Path) -> None:
    folder = REFERENCES / "bert"
    files = {name: path for name, path in files_of(folder).items() if name != "modules.json"}
    progress = Watching()
    quantize(files, "Q8_0", tmp_path / "silent.gguf", name="bert", progress=progress)
    quantize(files_of(folder), "Q8_0", tmp_path / "said.gguf", name="bert", progress=Silent())

    assert any("taking the mean" in text for text in progress.notes)
    # The reference pools by the mean too.
    assert (tmp_path / "silent.gguf").read_bytes() == (tmp_path / "said.gguf").read_bytes()


@pytest.mark.parametrize(
    ("pooling", "said"),
    [
        ({"pooling_mode_max_tokens": True}, "by one alone"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "by one alone"),
        ({}, "by one alone"),
        (None, "lacks 1_Pooling/config.json"),
    ],
)
def test_pooling_that_llama_cpp_does_not_do_is_refused(
    pooling: dict[str, object] | None, said: str, tmp_path: Path
) -> None:
    files = files_of(REFERENCES / "bert")
    del files["1_Pooling/config.json"]
    if pooling is not None:
        (tmp_path / "pooling.json").write_text(json.dumps(pooling))
        files["1_Pooling/config.json"] = tmp_path / "pooling.json"

    with pytest.raises(UsageError, match=said):
        quantize(files, "Q8_0", tmp_path / "out.gguf", name="bert", progress=Silent())
    assert not (tmp_path / "out.gguf").exists()


def test_a_module_after_the_pooling_is_refused(tmp_path: Path) -> None:
    files = files_of(REFERENCES / "bert")
    modules = json.loads(files["modules.json"].read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    files["modules.json"] = tmp_path / "modules.json"

    with pytest.raises(UsageError, match="'Dense'"):
        quantize(files, "Q8_0", tmp_path / "out.gguf", name="bert", progress=Silent())
