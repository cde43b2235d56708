"""compressed-tensors' files read by their documented layout, without the code under test."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from support.checkpoints import decode

WORDS = {"F8_E4M3": np.uint8, "I8": np.int8, "I32": np.int32, "I64": np.int64}


def read_safetensors(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Every tensor of one file: its type, and its values (of FP8, its bytes)."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        first, last = (begin + offset for offset in entry["data_offsets"])
        if entry["dtype"] in WORDS:
            values = np.frombuffer(data[first:last], WORDS[entry["dtype"]])
        else:
            values = decode(data[first:last], entry["dtype"])
        found[name] = entry["dtype"], values.reshape(entry["shape"])
    return found


def fp8_value(code: int) -> float:
    """What the byte stands for: OCP 8-bit floating point, E4M3."""
    sign = -1.0 if code >= 128 else 1.0
    exponent, fraction = (code & 127) // 8, code % 8
    if exponent == 15 and fraction == 7:
        return math.nan
    if exponent == 0:
        return sign * fraction / 8 * 2.0**-6
    return sign * (1 + fraction / 8) * 2.0 ** (exponent - 7)


FP8_VALUES = np.array([fp8_value(code) for code in range(256)], np.float32)


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """(rows, columns) of numbers, out of int32 words (rows, columns * bits // 32)."""
    each = [(words >> shift) & (2**bits - 1) for shift in range(0, 32, bits)]
    return np.stack(each, axis=-1).reshape(len(words), -1) - 2 ** (bits - 1)


def dequantize(tensors: dict[str, tuple[str, np.ndarray]], name: str, bits: int) -> np.ndarray:
    """The weights of the linear layer ``name``, float32 (rows, columns)."""
    scales = tensors[f"{name}.weight_scale"][1]
    if f"{name}.weight_packed" in tensors:
        numbers = unpack(tensors[f"{name}.weight_packed"][1], bits).astype(np.float32)
        assert list(tensors[f"{name}.weight_shape"][1]) == list(numbers.shape)
    else:
        dtype, codes = tensors[f"{name}.weight"]
        numbers = FP8_VALUES[codes] if dtype == "F8_E4M3" else codes.astype(np.float32)
    groups = numbers.reshape(len(numbers), scales.shape[1], -1)
    return (groups * scales[:, :, np.newaxis]).reshape(numbers.shape)
