"""The header of a GGUF file as bytes: key-value pairs, then where each tensor is.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian.
Pure: the same values give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from packager.format.ggml_types import GgmlType
from packager.format.gguf_header import DEFAULT_ALIGNMENT, MAGIC

VERSION = 3

_UINT8, _UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 0, 4, 5, 6, 7, 8, 9


@dataclass(frozen=True)
class Entry:
    """One key of the metadata, its value already encoded."""

    key: str
    value_type: int
    payload: bytes


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. ``shape`` is (rows, columns) or (n,); ``offset`` counts from the data's begin."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """How many weights."""
        product = 1
        for dimension in self.shape:
            product *= dimension
        return product

    @property
    def size(self) -> int:
        """Bytes of data, without the padding after them."""
        return self.type.row_size(self.elements)


def uint32(key: str, value: int) -> Entry:
    """An unsigned 32-bit integer."""
    return Entry(key, _UINT32, struct.pack("<I", value))


def float32(key: str, value: float) -> Entry:
    """A float, rounded to 32 bits."""
    return Entry(key, _FLOAT32, struct.pack("<f", value))


def flag(key: str, value: bool) -> Entry:
    """A boolean."""
    return Entry(key, _BOOL, struct.pack("<B", value))


def text(key: str, value: str) -> Entry:
    """A string."""
    return Entry(key, _STRING, _string(value))


def texts(key: str, values: Sequence[str]) -> Entry:
    """An array of strings."""
    return _array(key, _STRING, len(values), b"".join(map(_string, values)))


def int32s(key: str, values: Sequence[int]) -> Entry:
    """An array of signed 32-bit integers."""
    return _array(key, _INT32, len(values), struct.pack(f"<{len(values)}i", *values))


def float32s(key: str, values: Sequence[float]) -> Entry:
    """An array of 32-bit floats."""
    return _array(key, _FLOAT32, len(values), struct.pack(f"<{len(values)}f", *values))


def flags(key: str, values: Sequence[bool]) -> Entry:
    """An array of booleans."""
    return _array(key, _BOOL, len(values), bytes(values))


def octets(key: str, values: bytes) -> Entry:
    """An array of unsigned 8-bit integers."""
    return _array(key, _UINT8, len(values), values)


def encode_header(entries: Sequence[Entry], tensors: Sequence[TensorInfo]) -> bytes:
    """Everything before the data, padded so that the data begins aligned."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(entries))]
    for entry in entries:
        parts += [_string(entry.key), struct.pack("<I", entry.value_type), entry.payload]
    for tensor in tensors:
        shape = tensor.shape[::-1]  # ggml counts dimensions from the fastest
        parts += [
            _string(tensor.name),
            struct.pack(f"<I{len(shape)}Q", len(shape), *shape),
            struct.pack("<IQ", tensor.type.number, tensor.offset),
        ]
    header = b"".join(parts)
    return header.ljust(aligned(len(header)), b"\0")


def aligned(position: int) -> int:
    """The first multiple of the alignment that is not before ``position``."""
    return -(-position // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _string(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _array(key: str, item_type: int, count: int, items: bytes) -> Entry:
    return Entry(key, _ARRAY, struct.pack("<IQ", item_type, count) + items)
