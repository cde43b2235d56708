"""The types of floats that weights and their scales come in, as the words they are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class FloatType:
    """A type of safetensors: its ``word``, and the word that is infinity.

    ``epsilon`` is the distance from 1 to the next larger number.
    """

    word: type[np.unsignedinteger]
    infinity: int
    epsilon: float


FLOAT_TYPES: Mapping[str, FloatType] = {
    "BF16": FloatType(np.uint16, 0x7F80, 2.0**-7),
    "F16": FloatType(np.uint16, 0x7C00, 2.0**-10),
    "F32": FloatType(np.uint32, 0x7F80_0000, 2.0**-23),
}

# E8M0 (OCP Microscaling Formats 1.0, section 5.4.1): a byte is the exponent of a float32, but for
# 0, half of the least normal number, and 255, not-a-number.
E8M0_POWERS: Floats = np.array(
    [0x0040_0000, *(exponent << 23 for exponent in range(1, 255)), 0x7FC0_0000], np.uint32
).view(np.float32)


def widen(words: Words, dtype: str) -> Floats:
    """The floats of ``dtype`` in ``words``, as float32 of the same shape in an array of its own."""
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        bits = words.astype(np.uint32)
        return np.left_shift(bits, 16, out=bits).view(np.float32)
    floats: Floats = words.view(np.float16 if dtype == "F16" else np.float32).astype(np.float32)
    return floats


def narrow(floats: Floats, dtype: str) -> Words:
    """The words of finite ``floats``, none negative, rounded to ``dtype``, to even."""
    if dtype == "BF16":
        bits = floats.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    if dtype == "F16":
        return floats.astype(np.float16).view(np.uint16)
    return floats.view(np.uint32)
