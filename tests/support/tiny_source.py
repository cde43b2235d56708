"""A repository as the hub has them, of a few kilobytes: for tests that never run the model."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping

LLAMA_CONFIG: Mapping[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
CARD = b"---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\n"
REPOSITORY = "org/tiny"
WEIGHTS = "model.safetensors"
RECIPE = """\
name: tiny
source: {hub: org/tiny}
licence: {allow: [apache-2.0]}
variants:
  - {name: q8_0, format: gguf, type: Q8_0}
"""


def safetensors(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int = 1, header_size: int = 0
) -> bytes:
    """A valid safetensors file of bf16 tensors, with random bits in them.

    Its header takes at least ``header_size`` bytes.
    """
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text = text.ljust(header_size)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + random.Random(seed).randbytes(end)


def weights(data: bytes) -> bytes:
    """A valid safetensors file as large as ``data`` and with its bytes, but for a header in front.

    It takes 96 bytes.
    """
    size = len(data) - 96
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    return (88).to_bytes(8, "little") + json.dumps({"w": tensor}).encode().ljust(88) + data[96:]


def tiny_source(*, weights: int = 100_000) -> dict[str, bytes]:
    """The files of a repository whose weights take about ``weights`` bytes."""
    return {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "LICENSE": b"Do as you like.\n",
        "README.md": CARD,
        "config.json": json.dumps(LLAMA_CONFIG).encode(),
        "model.safetensors": safetensors({"model.embed_tokens.weight": (weights // 2, 1)}),
        "original/consolidated.00.pth": b"\x80\x02}q\x00.",
        "pytorch_model.bin": b"PK\x03\x04" + b"pickle" * 10,
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE"}}).encode(),
        "training_args.bin": b"\x80\x02}q\x00.",
    }
