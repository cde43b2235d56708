"""Real models of random weights, for a real engine."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of

from packager.progress import Silent
from packager.quantize.pipeline import quantize

_HIDDEN, _LAYERS, _FEED_FORWARD, _HEADS, _KV_HEADS, _CONTEXT = 256, 2, 512, 4, 2, 512
_MERGES = ("t h", "th e", "Ġ the", "i n", "a n", "an d")
_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE, as GPT-2 has it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    moved = {byte: 0x100 + index for index, byte in enumerate(rest)}
    return [chr(moved.get(byte, byte)) for byte in range(256)]


def write_random_model(path: Path, *, chat_template: str | None = None, seed: int = 1) -> Path:
    """A small llama with random Q8_0 weights and a byte-level BPE vocabulary."""
    tokens = _byte_characters() + [merge.replace(" ", "") for merge in _MERGES] + ["<s>", "</s>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * (len(tokens) - 2) + [gguf.TokenType.CONTROL] * 2
    )
    writer.add_token_merges(_MERGES)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(True)
    if chat_template:
        writer.add_chat_template(chat_template)
    for name, (rows, columns) in _matrices(len(tokens)).items():
        values = np.random.default_rng([seed, *name.encode()]).standard_normal((rows, columns))
        scaled = (values * 2 / np.sqrt(columns)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(scaled, kind), raw_dtype=kind)
    for name in (
        "output_norm",
        *(f"blk.{n}.{k}_norm" for n in range(_LAYERS) for k in ("attn", "ffn")),
    ):
        writer.add_tensor(f"{name}.weight", np.ones(_HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _matrices(vocabulary: int) -> dict[str, tuple[int, int]]:
    """Shapes as (rows, columns)."""
    kv = _HIDDEN // _HEADS * _KV_HEADS
    layer = {
        "attn_q": (_HIDDEN, _HIDDEN),
        "attn_k": (kv, _HIDDEN),
        "attn_v": (kv, _HIDDEN),
        "attn_output": (_HIDDEN, _HIDDEN),
        "ffn_gate": (_FEED_FORWARD, _HIDDEN),
        "ffn_up": (_FEED_FORWARD, _HIDDEN),
        "ffn_down": (_HIDDEN, _FEED_FORWARD),
    }
    ends = {"token_embd.weight": (vocabulary, _HIDDEN), "output.weight": (vocabulary, _HIDDEN)}
    return ends | {
        f"blk.{number}.{name}.weight": shape
        for number in range(_LAYERS)
        for name, shape in layer.items()
    }


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, with no chat template."""
    return write_random_model(tmp_path_factory.mktemp("models") / "random.gguf")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a chat template."""
    path = tmp_path_factory.mktemp("models") / "chat.gguf"
    return write_random_model(path, chat_template=_TEMPLATE)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that makes vectors, of the reference checkpoint, as F32."""
    path = tmp_path_factory.mktemp("models") / "encoder.gguf"
    quantize(files_of(REFERENCES / "bert"), "F32", path, name="bert", progress=Silent())
    return path
