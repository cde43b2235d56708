"""Safetensors to compressed-tensors, what vLLM and transformers load, in the same streaming way.

Each linear layer's matrix becomes small numbers and scales; everything else is carried as it is.
The plan comes first and is pure; then each shard of the source becomes one of the same name.
"""

from __future__ import annotations

VERSION = "1"
"""Bumped whenever the bytes written for the same input may change: part of the cache's key."""
