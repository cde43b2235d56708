"""What is planned is checked against the tensors first."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES, files_of, write_llama

from packager.errors import MalformedError
from packager.quantize.plan import make_plan
from packager.quantize.wanted import Wanted


def test_a_vocabulary_larger_than_its_tensor_is_refused_before_it_is_built(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 1 << 24}))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match=r"has the shape .* calls for \[16777216, "):
            make_plan(files_of(folder), Wanted.of("Q8_0"), name="x")
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


def test_more_experts_than_there_are_are_refused_before_all_are_counted(tmp_path: Path) -> None:
    files = files_of(REFERENCES / "mixtral")
    config = json.loads(files["config.json"].read_text())
    files["config.json"] = tmp_path / "config.json"
    changes = {"num_local_experts": 1024, "num_hidden_layers": 512}
    files["config.json"].write_text(json.dumps({**config, **changes}))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match=r"block_sparse_moe\.gate\.weight has the shape"):
            make_plan(files, Wanted.of("Q8_0"), name="x")
        assert tracemalloc.get_traced_memory()[1] < 160 << 20
    finally:
        tracemalloc.stop()
