"""LoRA adapters for the small models of checkpoints.py, made on the spot as PEFT saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from support.checkpoints import encode, safetensors_bytes

CONFIG: Mapping[str, object] = {
    "base_model_name_or_path": "org/base",
    "bias": "none",
    "lora_alpha": 6,
    "peft_type": "LORA",
    "r": 2,
    "target_modules": ["q_proj"],
}
QUERY = "model.layers.0.self_attn.q_proj"


def half(module: str, which: str) -> str:
    """PEFT's name of one of the two tensors of ``module``: ``which`` is A or B."""
    return f"base_model.model.{module}.lora_{which}.weight"


def write_adapter_folder(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str = "F32",
    seed: int = 1,
    **config: object,
) -> Path:
    """Write an adapter of random tensors of these names and shapes; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    random = np.random.default_rng(seed)
    tensors = {
        name: (dtype, shape, encode(random.standard_normal(shape, np.float32), dtype))
        for name, shape in shapes.items()
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder


def query_adapter(folder: Path, *, width: int, rank: int = 2, **config: object) -> Path:
    """An adapter that changes the queries of the first layer of a model of ``width``."""
    shapes = {half(QUERY, "A"): (rank, width), half(QUERY, "B"): (width, rank)}
    return write_adapter_folder(folder, shapes, **config)  # type: ignore[arg-type]
