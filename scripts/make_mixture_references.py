"""Ask llama.cpp which type each tensor of well-known models gets; keep it in tests/references/.

    cmake -B build && cmake --build build --target llama-quantize      # in llama.cpp
    python scripts/make_mixture_references.py .../llama-quantize tests/references/mixtures.json

Not run by CI: what it wrote is committed, and is a contract. For each model a GGUF file is made
whose tensors have the model's names and row lengths, but few rows; ``llama-quantize --dry-run``
then says what it would do for each type of file, with and without an importance matrix.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import numpy as np

from packager.quantize.gguf_writer import (
    Entry,
    TensorInfo,
    aligned,
    encode_header,
    float32,
    text,
    uint32,
)
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.types import F32, TYPE_NAMES

ROWS = 4
DENSE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
MIXTURE_OF_EXPERTS = (
    "attn_q", "attn_k", "attn_v", "attn_output",
    "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
)  # fmt: skip
SHARED = (*MIXTURE_OF_EXPERTS, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def model(
    architecture: str,
    layers: int,
    width: int,
    inner: int,
    heads: tuple[int, int],
    parts: tuple[str, ...] = DENSE,
    *,
    experts: int = 0,
    outside: tuple[str, ...] = ("token_embd", "output"),
) -> dict[str, object]:
    """The shape of a model: ``heads`` are those of queries and of keys."""
    return {
        "architecture": architecture,
        "layers": layers,
        "width": width,
        "inner": inner,
        "heads": list(heads),
        "experts": experts,
        "outside": list(outside),
        "parts": list(parts),
    }


TIED = ("token_embd",)
MODELS = {
    "llama-2-7b": model("llama", 32, 4096, 11008, (32, 32)),
    "llama-3-8b": model("llama", 32, 4096, 14336, (32, 8)),
    "llama-3-70b": model("llama", 80, 8192, 28672, (64, 8)),
    "llama-3.2-1b": model("llama", 16, 2048, 8192, (32, 8), outside=TIED),
    "qwen2.5-0.5b": model("qwen2", 24, 896, 4864, (14, 2), outside=TIED),
    "gemma-2-2b": model("gemma2", 26, 2304, 9216, (8, 4), outside=TIED),
    "phi-3-mini": model("phi3", 32, 3072, 8192, (32, 32), FUSED),
    "mixtral-8x7b": model("llama", 32, 4096, 14336, (32, 8), MIXTURE_OF_EXPERTS, experts=8),
    "qwen3-30b-a3b": model("qwen3moe", 48, 2048, 768, (32, 4), MIXTURE_OF_EXPERTS, experts=128),
    "qwen2-moe": model("qwen2moe", 24, 2048, 1408, (16, 16), SHARED, experts=60),
    "bge-small": model(
        "bert", 12, 384, 1536, (12, 12),
        ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"),
        outside=("token_embd", "position_embd", "token_types"),
    ),
}  # fmt: skip


def main() -> None:
    """Write what llama.cpp says of all models to the file that the command line names."""
    tool, out = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        blocks = [
            f' {json.dumps(name)}: {{\n  "shape": {json.dumps(shape)},\n  "types": {{\n'
            + ",\n".join(
                f"   {json.dumps(kind)}: {json.dumps(types)}"
                for kind, types in ask(tool, Path(folder), shape).items()
            )
            + "\n  }\n }"
            for name, shape in MODELS.items()
        ]
    # A line for each type of file: a change is seen for what it is.
    out.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


def ask(tool: Path, folder: Path, shape: dict[str, object]) -> dict[str, dict[str, str] | None]:
    """What ``tool`` does with a model of ``shape``: type of file -> part -> types, by layer.

    What it does with a matrix is there where that is something else.
    """
    source, matrix = folder / "model.gguf", folder / "matrix.gguf"
    tensors = layout(shape)
    write_model(source, shape, tensors)
    matrix.write_bytes(some_matrix(tensors).encode())
    answers = {}
    for type_name in TYPE_NAMES:
        answers[type_name] = by_part(dry_run(tool, source, type_name))
        with_matrix = by_part(dry_run(tool, source, type_name, "--imatrix", str(matrix)))
        if with_matrix != answers[type_name]:
            answers[f"{type_name} with matrix"] = with_matrix
    return answers


def layout(shape: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors."""
    tensors = {f"{name}.weight": (ROWS, int(shape["width"])) for name in shape["outside"]}
    for layer in range(int(shape["layers"])):
        for part in shape["parts"]:
            columns = int(shape["inner" if part.startswith("ffn_down") else "width"])
            sizes = (ROWS, columns)
            if part.endswith("_exps"):
                sizes = (int(shape["experts"]), *sizes)
            tensors[f"blk.{layer}.{part}.weight"] = sizes
    return tensors


def write_model(path: Path, shape: dict[str, object], tensors: dict[str, tuple[int, ...]]) -> None:
    """A GGUF file of zeros that llama.cpp takes for such a model."""
    infos = []
    offset = 0
    for name, sizes in tensors.items():
        infos.append(TensorInfo(name, F32, sizes, offset))
        offset = aligned(offset + infos[-1].size)
    header = encode_header(entries(shape), infos)
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + offset)


def entries(shape: dict[str, object]) -> list[Entry]:
    """The metadata that llama.cpp wants to know."""
    prefix = str(shape["architecture"])
    heads, keys = shape["heads"]
    numbers = {
        "vocab_size": ROWS,
        "context_length": 512,
        "embedding_length": shape["width"],
        "block_count": shape["layers"],
        "feed_forward_length": shape["inner"],
        "attention.head_count": heads,
        "attention.head_count_kv": keys,
        "expert_count": shape["experts"],
        "expert_used_count": min(int(shape["experts"]), 2),
        "expert_feed_forward_length": shape["inner"],
        "attention.sliding_window": 512,
    }
    return [
        text("general.architecture", prefix),
        *(uint32(f"{prefix}.{key}", int(value)) for key, value in numbers.items()),
        float32(f"{prefix}.attention.layer_norm_rms_epsilon", 1e-5),
        float32(f"{prefix}.attention.layer_norm_epsilon", 1e-5),
    ]


def some_matrix(tensors: dict[str, tuple[int, ...]]) -> ImportanceMatrix:
    """An importance matrix of ones: the mixture asks only whether there is one."""
    return ImportanceMatrix(
        {
            name: TensorImportance(
                np.ones((sizes[0] if len(sizes) == 3 else 1, sizes[-1]), np.float32),
                np.ones(sizes[0] if len(sizes) == 3 else 1, np.int64),
            )
            for name, sizes in tensors.items()
        },
        ("a text",),
        1,
        512,
    )


def dry_run(tool: Path, source: Path, type_name: str, *options: str) -> dict[str, str] | None:
    """The type of each tensor; ``None`` where llama.cpp refuses."""
    ended = subprocess.run(
        [tool, "--dry-run", *options, source, type_name],
        capture_output=True,
        text=True,
        check=False,
    )
    output = ended.stdout + ended.stderr
    if ended.returncode:
        if "no tensor type fallback" not in output:
            raise SystemExit(f"{type_name}: {output[-1000:]}")
        return None
    found = re.findall(r"^\[ *\d+/ *\d+\] +(\S+) .*?(?:\((\w+)\))?$", output, re.MULTILINE)
    return {name: (kind or "f32").upper() for name, kind in found}


def by_part(types: dict[str, str] | None) -> dict[str, str] | None:
    """The type of each part; "4 Q6_K, 28 Q4_K" where the first four layers have another."""
    if types is None:
        return None
    parts: dict[str, list[str]] = {}
    for name, kind in types.items():
        parts.setdefault(name.removesuffix(".weight").split(".")[-1], []).append(kind)
    return {
        part: kinds[0]
        if len(set(kinds)) == 1
        else ", ".join(f"{len(list(run))} {kind}" for kind, run in groupby(kinds))
        for part, kinds in sorted(parts.items())
    }


if __name__ == "__main__":
    main()
