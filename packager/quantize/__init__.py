"""Safetensors to GGUF in one pass, with llama.cpp's own kernels.

The plan comes first and is pure: which tensor goes where, as which type, in how many bytes.
Then every tensor streams through small reused buffers to an offset known beforehand, so memory
does not grow with the model, and the same input gives the same bytes whatever the threads.
"""

from __future__ import annotations

VERSION = "1"
"""Bumped whenever the bytes written for the same input may change: part of the cache's key."""
