"""The tables that ggml builds for the IQ types when they are first used: a few megabytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from packager.quantize.kernels import Kernels

_lock = Lock()
_holders = 0


@contextmanager
def holding_tables(kernels: Kernels) -> Iterator[None]:
    """Free the tables after the block, unless another thread still quantizes.

    ggml builds a table once, under a lock of its own, and frees all of them whoever uses them.
    """
    global _holders
    with _lock:
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                kernels.library.ggml_quantize_free()
