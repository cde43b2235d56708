"""The pass over the weights: the same bytes always, and a result that tells of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.checkpoints import (
    REFERENCES,
    encode,
    files_of,
    read_tensors,
    safetensors_bytes,
    weights_size,
    write_llama,
)
from support.watching import Watching

from packager.format.gguf_header import parse_header
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.quantize.plan import make_plan
from packager.quantize.wanted import Wanted


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def test_the_bytes_do_not_depend_on_threads_nor_on_the_run(model: Path, tmp_path: Path) -> None:
    outs = []
    for number, threads in enumerate([1, 1, 2, 7]):
        out = tmp_path / f"{number}.gguf"
        quantize(files_of(model), "Q4_K_M", out, name="m", threads=threads, progress=Silent())
        outs.append(out.read_bytes())

    assert len(set(outs)) == 1


def test_shards_under_any_local_name_give_the_bytes_of_one_file(tmp_path: Path) -> None:
    """The cache is content-addressed: only the names in the repository count."""
    files = files_of(REFERENCES / "qwen3")
    cached = {}
    for number, (name, path) in enumerate(files.items()):
        cached[name] = tmp_path / f"blob{number}"
        cached[name].write_bytes(path.read_bytes())

    first = quantize(files, "Q8_0", tmp_path / "a.gguf", name="q", progress=Silent())
    again = quantize(cached, "Q8_0", tmp_path / "b.gguf", name="q", progress=Silent())

    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert first == again


def test_the_result_tells_what_was_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    watched = Watching()

    result = quantize(files_of(model), "Q8_0", out, name="a name", progress=watched)

    assert out.stat().st_size == result.size
    with out.open("rb") as stream:
        header = parse_header(stream, file_size=result.size, what="m.gguf")
    assert header.metadata["general.name"] == "a name"
    assert header.metadata["general.file_type"] == 7
    assert [(t.name, t.type, t.size) for t in result.tensors] == [
        (t.name, t.type.name, t.size) for t in header.tensors
    ]
    assert result.parameters == header.parameters
    assert result.fallbacks == ()
    total = weights_size(model)
    assert [(task.total, task.done) for task in watched.tasks] == [(total, total)]


def test_the_size_is_known_before_a_weight_is_read(model: Path, tmp_path: Path) -> None:
    plan = make_plan(files_of(model), Wanted.of("Q5_K_M"), name="m")

    result = quantize(files_of(model), "Q5_K_M", tmp_path / "m.gguf", name="m", progress=Silent())

    assert plan.size == result.size == (tmp_path / "m.gguf").stat().st_size


def test_rows_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", hidden_size=96, num_attention_heads=4)

    result = quantize(files_of(model), "Q4_K_S", tmp_path / "m.gguf", name="m", progress=Silent())

    assert ("blk.0.attn_q.weight", "Q4_K", "Q5_0") in result.fallbacks
    assert {fallback.name for fallback in result.fallbacks} >= {"token_embd.weight"}


def test_leftovers_of_old_transformers_and_a_tied_output_are_left_out(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", tie_word_embeddings=True)
    tensors = read_tensors(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = (
        "F32",
        (32,),
        encode(np.ones(32, np.float32), "F32"),
    )
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    result = quantize(files_of(model), "F16", tmp_path / "m.gguf", name="m", progress=Silent())

    assert "output.weight" not in {tensor.name for tensor in result.tensors}
    assert len(result.tensors) == 2 + 3 * 9


@pytest.mark.parametrize("name", ["my-Phi3-merge", "PHI-3 mini", "x-modern-bert"])
def test_a_name_that_llama_cpp_would_take_for_another_model_is_written_apart(
    name: str, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.gguf"

    quantize(files_of(model), "Q8_0", out, name=name, progress=Silent())

    written = gguf.GGUFReader(out).fields["general.name"].contents().lower()
    assert not any(trap in written for trap in ("phi3", "phi-3", "modern-bert"))


def test_a_sliding_window_that_is_not_carried_over_is_noted(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", sliding_window=64)
    watched = Watching()

    quantize(files_of(model), "Q8_0", tmp_path / "m.gguf", name="m", progress=watched)

    assert any("sliding window of 64" in note for note in watched.notes)


MEASURE = """
import resource, sys
from pathlib import Path
from packager.progress import Silent
from packager.quantize.pipeline import quantize_all
from packager.quantize.wanted import Wanted
files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
wanted = {Path(sys.argv[2]) / name: Wanted.of(name) for name in sys.argv[3:]}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize_all(files, wanted, name="m", threads=2, progress=Silent())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("types", [["Q8_0"], ["Q8_0", "BF16", "Q4_0", "F16"]])
def test_memory_grows_neither_with_the_model_nor_with_the_files(
    types: list[str], tmp_path: Path
) -> None:
    """Three tensors of 33 MB (67 MB each as float32) pass through buffers of half of one."""
    model = write_llama(tmp_path / "model", num_hidden_layers=1, intermediate_size=65536)

    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(tmp_path), *types],
        capture_output=True,
        check=True,
    )

    assert int(answer.stdout) * 1024 < 60_000_000
