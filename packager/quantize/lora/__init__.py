"""LoRA adapters: from PEFT's safetensors to llama.cpp's GGUF."""

VERSION = "1"
"""Bumped whenever the same adapter may become other bytes: part of the cache's key."""
