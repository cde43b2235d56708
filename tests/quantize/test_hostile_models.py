"""Models made to end, to stall or to mislead whoever quantizes them: refused in one sentence."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import (
    LLAMA_CONFIG,
    REFERENCES,
    byte_tokenizer,
    change_tensor,
    files_of,
    read_tensors,
    safetensors_bytes,
    write_llama,
)

from packager.errors import AirpackError, IntegrityError, MalformedError, UsageError
from packager.progress import Silent, Task
from packager.quantize.architectures import check_supported
from packager.quantize.compressed.pipeline import write_shards
from packager.quantize.compressed.plan import plan_variant
from packager.quantize.compressed.schemes import find_scheme
from packager.quantize.floats import E8M0_POWERS
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.mix import Choice
from packager.quantize.pipeline import quantize, quantize_all
from packager.quantize.plan import read_model
from packager.quantize.source import Documents
from packager.quantize.tokenizer.entries import tokenizer_entries
from packager.quantize.tokenizer.sentencepiece import parse_model
from packager.quantize.tokenizer.vocabulary import MAX_TOKEN_LENGTH
from packager.quantize.types import IQ3_S, Q4_K, file_type
from packager.quantize.wanted import Wanted

QUERY = "blk.0.attn_q.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model", num_hidden_layers=1)


def matrix_of(name: str, mean: float, columns: int = 256) -> ImportanceMatrix:
    importance = TensorImportance(
        np.full((1, columns), mean, np.float32), np.ones(1, dtype=np.int64)
    )
    return ImportanceMatrix({name: importance}, ("text",), 1, 512)


def refused(run: Callable[[], object], error: type[AirpackError], match: str, out: Path) -> None:
    with pytest.raises(error, match=match):
        run()
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".tmp-")]


def test_a_weight_on_which_ggml_would_end_the_process_is_refused(
    model: Path, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensor(model, name, lambda values: values.__setitem__(7, 0x6F00))  # 4e28
    out = tmp_path / "m.gguf"

    refused(
        lambda: quantize(files_of(model), "IQ3_S", out, name="m", progress=Silent()),
        UsageError,
        rf"{name} holds a value beyond the range of IQ3_S",
        out,
    )


def test_a_matrix_on_which_ggml_would_end_the_process_is_refused_where_it_would() -> None:
    huge = Wanted(file_type("IQ3_S"), matrix=matrix_of(QUERY, 1e30))

    with pytest.raises(MalformedError, match=rf"{QUERY}: a mean square beyond any model's"):
        huge.importance(QUERY, (256, 256), Choice(IQ3_S))
    assert huge.importance(QUERY, (256, 256), Choice(Q4_K)) is not None


def test_a_matrix_of_another_model_is_not_ignored_in_silence(model: Path, tmp_path: Path) -> None:
    wanted = Wanted(file_type("Q4_K_M"), matrix=matrix_of("enc.blk.0.attn_q.weight", 1.0))
    out = tmp_path / "m.gguf"

    refused(
        lambda: quantize_all(files_of(model), {out: wanted}, name="m", progress=Silent()),
        UsageError,
        "names no tensor of this model",
        out,
    )


class Meddling(Silent):
    """Lets ``meddle`` change the source after it was planned."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> AbstractContextManager[Task]:
        self._meddle()
        return super().task(label, total, unit=unit, done=done)


def write_again(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))


def put_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [write_again, put_another])
def test_a_shard_that_changes_while_it_is_quantized_makes_no_file(
    model: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    files, out = files_of(model), tmp_path / "m.gguf"
    meddling = Meddling(lambda: change(model / "model.safetensors"))

    refused(
        lambda: quantize(files, "Q8_0", out, name="m", progress=meddling),
        IntegrityError,
        r"model\.safetensors: was changed while it was read",
        out,
    )


def test_a_shard_that_changes_after_the_plan_makes_no_compressed_file(
    model: Path, tmp_path: Path
) -> None:
    (shard,) = plan_variant(files_of(model), find_scheme("W8A8")).shards
    write_again(model / "model.safetensors")
    out = tmp_path / "m.safetensors"

    with Silent().task("", 0) as task:
        refused(
            lambda: write_shards({out: shard}, task=task),
            IntegrityError,
            "was changed while it was read",
            out,
        )


def test_a_source_with_scales_of_its_own_beside_plain_weights_is_refused(model: Path) -> None:
    shard, name = model / "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    extra = {f"{name}_scale": ("BF16", (512, 1), bytes(1024))}
    shard.write_bytes(safetensors_bytes({**read_tensors(shard), **extra}))

    with pytest.raises(MalformedError, match=rf"has {name}_scale already"):
        plan_variant(files_of(model), find_scheme("FP8_DYNAMIC"))


def config_of(family: str) -> dict[str, object]:
    return json.loads((REFERENCES / family / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({**LLAMA_CONFIG, "num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({**LLAMA_CONFIG, "num_hidden_layers": -1}, "num_hidden_layers"),
        ({**LLAMA_CONFIG, "head_dim": 0}, "head_dim"),
        ({**LLAMA_CONFIG, "num_attention_heads": 16384, "head_dim": 1 << 20}, "head_dim: 16384"),
        ({**LLAMA_CONFIG, "rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        ({**LLAMA_CONFIG, "vocab_size": 1 << 40}, "vocab_size"),
        ({**LLAMA_CONFIG, "tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({**config_of("granite-moe"), "shared_intermediate_size": 1 << 32}, "shared_inter"),
    ],
)
def test_numbers_that_no_model_has_are_refused_at_the_lock(
    config: dict[str, object], match: str
) -> None:
    with pytest.raises(AirpackError, match=match):
        check_supported(config)


def test_a_context_of_one_token_cannot_be_stretched() -> None:
    config = config_of("phi4-mini")
    rope = config["rope_parameters"]
    assert isinstance(rope, dict)
    trained = {**rope, "original_max_position_embeddings": 1}
    yarn = {"rope_type": "yarn", "factor": 2.0}

    with pytest.raises(MalformedError, match="original_max_position_embeddings"):
        check_supported({**config, "rope_parameters": trained})
    with pytest.raises(MalformedError, match="max_position_embeddings: too few"):
        check_supported({**LLAMA_CONFIG, "rope_scaling": yarn, "max_position_embeddings": 1})


def documents(tokenizer: dict[str, object] | None = None, **more: object) -> Documents:
    given: dict[str, object] = {
        "config": {},
        "tokenizer": tokenizer or byte_tokenizer(),
        "tokenizer_config": {},
        "added_tokens": {},
        "sentencepiece": None,
        "chat_template": None,
        **more,
    }
    return Documents(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("falls_back_to_bytes", [False, True])
def test_a_token_whose_cuts_would_take_hours_is_refused(falls_back_to_bytes: bool) -> None:
    vocab = {"a" * MAX_TOKEN_LENGTH: 0, "b" * (1 << 22): 1}
    given = {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": falls_back_to_bytes}
    begin = time.process_time()

    with pytest.raises(MalformedError, match="token 1 has 4194304 characters"):
        tokenizer_entries(documents({"model": given}), 300)
    assert time.process_time() - begin < 1


def test_a_merge_of_millions_of_parts_is_refused_before_they_are_made() -> None:
    tokenizer = byte_tokenizer()
    tokenizer["model"]["merges"] = [" " * (1 << 24)]  # type: ignore[index]
    begin = time.process_time()

    with pytest.raises(MalformedError, match=r"merges\[0\]"):
        tokenizer_entries(documents(tokenizer), 300)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    piece = b"\x0a\x01a" + b"\x15" + struct.pack("<f", score)
    data = b"\x0a" + bytes([len(piece)]) + piece + b"\x12\x02\x18\x02"

    with pytest.raises(MalformedError, match="score"):
        parse_model(data)


@pytest.mark.parametrize(
    "template",
    ["x" * (1 << 21), [{"name": f"t{number}", "template": "x"} for number in range(100)]],
    ids=["two megabytes", "a hundred"],
)
def test_chat_templates_that_our_own_reader_would_refuse_are_not_written(template: object) -> None:
    with pytest.raises(MalformedError, match="chat_template"):
        tokenizer_entries(documents(tokenizer_config={"chat_template": template}), 300)


def test_kinds_of_text_beyond_32_bits_are_refused() -> None:
    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    tokenizer = {
        "model": {"type": "WordPiece", "vocab": vocab},
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]"}

    with pytest.raises(MalformedError, match="type_vocab_size"):
        tokenizer_entries(
            documents(tokenizer, config={"type_vocab_size": 1 << 40}, tokenizer_config=special), 3
        )


def test_the_documents_of_a_model_are_read_once_for_all_its_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        "packager.quantize.pipeline.read_model",
        lambda files: read.append(files) or read_model(files),
    )
    wanted = {tmp_path / kind: Wanted.of(kind) for kind in ("Q8_0", "F16", "Q4_0")}

    quantize_all(files_of(model), wanted, name="m", progress=Silent())

    assert len(read) == 1


def test_the_powers_of_two_of_e8m0_are_exact() -> None:
    np.testing.assert_array_equal(E8M0_POWERS[:255], np.exp2(np.arange(255) - 127.0))
    assert np.isnan(E8M0_POWERS[255])
