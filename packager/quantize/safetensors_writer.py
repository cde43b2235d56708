"""The header of a safetensors file as bytes, and so where the data of each tensor begins.

Layout: https://github.com/huggingface/safetensors, "Format". Pure: the same tensors give the same
bytes. Larger elements come first, then names in order, so that every tensor is aligned; this is
the order of the reference implementation too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from packager.format.safetensors_header import DTYPE_BITS, PREFIX_SIZE, parse_header

_ALIGNMENT = 8


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: ``name``, ``dtype`` as safetensors has it, and ``shape``."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class NewFile:
    """A file to be: ``header``, then the tensors at their ``positions``; ``size`` in bytes."""

    header: bytes
    positions: dict[str, int]
    size: int


def lay_out(tensors: Iterable[NewTensor], *, what: str) -> NewFile:
    """Where everything will be in a file of ``tensors``, called ``what`` in errors.

    Raises ``MalformedError`` where our own strict reader would refuse that file.
    """
    members: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in sorted(tensors, key=lambda each: (-DTYPE_BITS[each.dtype], each.name)):
        members[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT, b" ")
    header = len(text).to_bytes(PREFIX_SIZE, "little") + text
    size = len(header) + offset
    written = parse_header(header, file_size=size, what=what)
    return NewFile(header, {entry.name: entry.begin for entry in written.tensors}, size)
