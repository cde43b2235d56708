"""Where a connected host builds: the embedded model's recipe, a key and a cache."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

from packager.connected.build import BuildRequest
from packager.connected.cache import Cache
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.signing.keys import SigningKey
from packager.progress import Silent

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PLATFORM = f"linux_{platform.machine()}"
RECIPE = f"""\
name: demo
version: 1.0.0
source: {{path: {files("packager") / "demo" / "tiny-kjv"}}}
licence: {{allow: [cc0-1.0]}}
variants:
  - {{name: q4_k_m, format: gguf, type: Q4_K_M}}
  - {{name: original, format: safetensors}}
smoke: {{prompts: ["In the beginning"], max_tokens: 4}}
targets:
  - {{platform: {PLATFORM}, python: ["{PYTHON}"], glibc: "2.28"}}
"""


@dataclass(frozen=True)
class Workplace:
    """A recipe, its key and a cache; ``request`` is what a person would ask for."""

    recipe: Path
    key: SigningKey
    cache: Cache

    def request(self, output: Path, volume_size: int | None = None) -> BuildRequest:
        """Build into ``output``, signed."""
        return BuildRequest(
            recipe=read_recipe(self.recipe),
            recipe_folder=self.recipe.parent,
            lock=lock_recipe(self.recipe, Silent()),
            output=output,
            keys=(self.key,),
            volume_size=volume_size,
            parity=None,
            now=NOW,
        )
