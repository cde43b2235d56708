"""Checkpoints of any architecture and any shape, with random weights, made on the spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from packager.quantize.architectures import find_architecture
from packager.quantize.config import parse_config
from support.checkpoints import REFERENCES, encode, safetensors_bytes


def write_random(folder: Path, family: str, **config: object) -> Path:
    """A model like the reference checkpoint ``family`` but for what ``config`` changes."""
    folder.mkdir(parents=True)
    for path in (REFERENCES / family).iterdir():
        if path.is_file() and "safetensors" not in path.name and path.stem != "reference":
            shutil.copy(path, folder)
    settings = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(settings))
    architecture = find_architecture(settings)
    random = np.random.default_rng(1)
    shapes = {
        part.name: part.shape
        for weight in architecture.weights(parse_config(settings, architecture.dialect))
        for part in weight.parts
    }
    tensors = {
        name: ("BF16", shape, encode(random.standard_normal(shape, np.float32) * 0.1, "BF16"))
        for name, shape in shapes.items()
    }
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder
