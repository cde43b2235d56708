"""Small checkpoints made on the spot: a Llama of any shape with random weights, and no training."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

Tensor = tuple[str, tuple[int, ...], bytes]  # dtype, shape, data

REFERENCES = Path(__file__).parents[1] / "references"

LLAMA_CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 288,
}


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint by their names in the repository."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("reference.")
    }


def write_llama(folder: Path, *, dtype: str = "BF16", seed: int = 1, **config: object) -> Path:
    """Write a Llama of the shape that ``config`` changes; returns ``folder``."""
    settings = {**LLAMA_CONFIG, **config}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    random = np.random.default_rng(seed)
    tensors = {
        name: (dtype, shape, encode(random.standard_normal(shape, np.float32) * 0.1, dtype))
        for name, shape in llama_shapes(settings).items()
    }
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder


def llama_shapes(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """transformers' names and shapes of a Llama's tensors."""
    width, inner, rows = (
        int(str(config[key])) for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads, keys = (int(str(config[k])) for k in ("num_attention_heads", "num_key_value_heads"))
    size = width // heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, width),
        "model.norm.weight": (width,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (rows, width)
    for layer in range(int(str(config["num_hidden_layers"]))):
        block = f"model.layers.{layer}."
        shapes[block + "input_layernorm.weight"] = (width,)
        shapes[block + "post_attention_layernorm.weight"] = (width,)
        shapes[block + "self_attn.q_proj.weight"] = (heads * size, width)
        shapes[block + "self_attn.k_proj.weight"] = (keys * size, width)
        shapes[block + "self_attn.v_proj.weight"] = (keys * size, width)
        shapes[block + "self_attn.o_proj.weight"] = (width, heads * size)
        shapes[block + "mlp.gate_proj.weight"] = (inner, width)
        shapes[block + "mlp.up_proj.weight"] = (inner, width)
        shapes[block + "mlp.down_proj.weight"] = (width, inner)
    return shapes


def layer_matrices() -> Iterator[tuple[str, int]]:
    """llama.cpp's names of the matrices in :data:`LLAMA_CONFIG`'s layers, and their columns."""
    parts = dict.fromkeys(
        ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"), 256
    ) | {"ffn_down": 512}
    for layer in range(3):
        for part, columns in parts.items():
            yield f"blk.{layer}.{part}.weight", columns


def byte_tokenizer() -> dict[str, object]:
    """GPT-2's byte-level BPE with no merges: every byte is a token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]
    return {
        "added_tokens": [{"id": 256, "content": "<|endoftext|>", "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {character: number for number, character in enumerate(alphabet)},
            "merges": [],
        },
    }


def encode(values: np.ndarray, dtype: str) -> bytes:
    """``values`` (float32) as ``dtype``, bfloat16 by cutting off."""
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def decode(data: bytes, dtype: str) -> np.ndarray:
    """Float32 of the bytes of a tensor."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)


def safetensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of the tensors by their names."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def read_tensors(shard: Path) -> dict[str, Tensor]:
    """Every tensor of a shard as it is stored, read without the code under test."""
    data = shard.read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            tuple(entry["shape"]),
            data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def weights_size(model: Path) -> int:
    """The bytes of all tensors of a checkpoint of one shard."""
    return sum(len(data) for _, _, data in read_tensors(model / "model.safetensors").values())


def change_tensor(model: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Rewrite the one shard of ``model`` with the uint16 bits of one tensor changed."""
    shard = model / "model.safetensors"
    tensors = read_tensors(shard)
    dtype, shape, data = tensors[name]
    values = np.frombuffer(data, "<u2").copy()
    change(values)
    tensors[name] = (dtype, shape, values.tobytes())
    shard.write_bytes(safetensors_bytes(tensors))


def read_source(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint as float32, read without the code under test."""
    return {
        name: decode(data, dtype).reshape(shape)
        for shard in sorted(folder.glob("*.safetensors"))
        for name, (dtype, shape, data) in read_tensors(shard).items()
    }
