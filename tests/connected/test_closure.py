"""What the files of a source refer to, for loaders that would look for the rest on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_source import LLAMA_CONFIG, safetensors

from packager.connected.inside.closure import check_closure
from packager.errors import AirpackError, MalformedError, NetworkUseError, UnsafeContentError

SHARD, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
WHOLE: dict[str, object] = {
    "config.json": {**LLAMA_CONFIG, "_name_or_path": "org/base"},
    "generation_config.json": {"eos_token_id": 2},
    "tokenizer.json": {"model": {}},
    "tokenizer_config.json": {"tokenizer_file": "/home/them/tokenizer.json", "vocab_file": None},
    SHARD: safetensors({"a": (2, 3)}),
    INDEX: {"weight_map": {"a": SHARD}},
    "modules.json": [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}],
}


def check(folder: Path, files: dict[str, object]) -> None:
    paths = {}
    for name, content in files.items():
        paths[name] = folder / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        paths[name].write_bytes(data)
    check_closure("original", paths)


def test_a_source_that_is_whole_passes_and_so_do_its_parts_in_folders(tmp_path: Path) -> None:
    check(tmp_path, WHOLE)
    check(tmp_path / "deep", {f"text/{name}": content for name, content in WHOLE.items()})


@pytest.mark.parametrize(
    ("path", "content", "fact"),
    [
        ("config.json", {"use_pretrained_backbone": True, "backbone": "resnet50"}, "'resnet50'"),
        ("config.json", {"audio": [{"pretrained_model_name_or_path": "org/ears"}]}, "'org/ears'"),
        ("processor_config.json", {"tokenizer_name_or_path": "org/words"}, "'org/words'"),
        ("tokenizer_config.json", {"vocab_file": "words.txt"}, "vocab_file names 'words.txt'"),
        ("modules.json", [{"type": "own_module.Own"}], "'own_module.Own' is none of"),
    ],
)
def test_what_would_be_fetched_at_run_time_is_named(
    tmp_path: Path, path: str, content: object, fact: str
) -> None:
    with pytest.raises(NetworkUseError) as refused:
        check(tmp_path, {**WHOLE, path: content})
    assert refused.value.message.startswith(f"original: {path}: ")
    assert fact in refused.value.message
    assert refused.value.exit_code == 16


def test_a_tokenizer_without_its_vocabulary_would_be_fetched(tmp_path: Path) -> None:
    rest = {name: content for name, content in WHOLE.items() if name != "tokenizer.json"}
    rest["tokenizer_config.json"] = {}
    with pytest.raises(NetworkUseError, match="there is no vocabulary beside it"):
        check(tmp_path, rest)
    check(tmp_path, {**rest, "tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer"}})
    check(tmp_path, {**rest, "spiece.model": b"x"})


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ({"a": "model-00002-of-00002.safetensors"}, MalformedError),
        ({"b": SHARD}, MalformedError),
        ({"a": "../elsewhere.safetensors"}, UnsafeContentError),
    ],
)
def test_72_an_index_that_does_not_fit_the_shards_is_refused_where_nothing_is_converted(
    tmp_path: Path, index: dict[str, str], error: type[AirpackError]
) -> None:
    with pytest.raises(error):
        check(tmp_path, {**WHOLE, INDEX: {"weight_map": index}})
