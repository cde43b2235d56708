"""What a file of any bytes begins with, so that it is a safetensors file, as an install wants."""

from __future__ import annotations

import json

_PREFIX_SIZE, HEAD_SIZE = 8, 128


def tensor_head(size: int) -> bytes:
    """The first ``HEAD_SIZE`` bytes of a file of ``size`` bytes, the others being one tensor's."""
    end = size - HEAD_SIZE
    tensor = {"dtype": "U8", "shape": [end], "data_offsets": [0, end]}
    length = HEAD_SIZE - _PREFIX_SIZE
    text = json.dumps({"bytes": tensor}).encode("ascii").ljust(length)
    return length.to_bytes(_PREFIX_SIZE, "little") + text
