"""A publisher's repository of GGUF files: one model, and the same in three parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from packager.connected.lock import lock_recipe
from packager.format.lock import Lock
from packager.progress import Silent
from support.gguf_files import split_gguf
from support.tiny_source import CARD
from support.workplace import PLATFORM, PYTHON

_RECIPE = f"""\
name: demo
source: {{path: model}}
licence: {{allow: [apache-2.0]}}
variants:
  - {{name: q4_k_m, format: gguf, file: FILE}}
smoke: {{prompts: ["In the beginning"], max_tokens: 4}}
targets:
  - {{platform: {PLATFORM}, python: ["{PYTHON}"], glibc: "2.28"}}
"""
ONE, SPLIT = "demo-Q4_K_M.gguf", "demo-Q4_K_M-00001-of-00003.gguf"


def publish(place: Path, model: Path) -> Path:
    """Make the repository ``place`` of the one GGUF file ``model``, with what lies beside."""
    place.mkdir()
    shutil.copy(model, place / ONE)
    split_gguf(model, place, "demo-Q4_K_M", 3)
    (place / "README.md").write_bytes(CARD)
    (place / "LICENSE").write_bytes(b"Do as you like.\n")
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (place / "mmproj-F16.gguf").write_bytes(b"not looked into")
    return place


def recipe_for(folder: Path, file: str, *more: str, licence: str = "apache-2.0") -> Path:
    """A recipe beside ``folder`` for a variant of its ``file``, with the lines ``more``."""
    recipe = folder.parent / "demo.yaml"
    text = _RECIPE.replace("FILE", json.dumps(file)).replace("apache-2.0", licence)
    recipe.write_text(text + "".join(f"{line}\n" for line in more))
    return recipe


def lock_of(folder: Path, file: str, *more: str) -> Lock:
    """The lock of that recipe."""
    return lock_recipe(recipe_for(folder, file, *more), Silent())


def paths_of(lock: Lock) -> list[str]:
    """The files that are locked."""
    return [file.path for file in lock.files]
