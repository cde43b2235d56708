"""GGUF files as a publisher has them: other metadata, and models split as ``gguf-split`` does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from packager.format.gguf_header import GgufHeader, GgufTensor, parse_header
from packager.quantize.gguf_writer import Entry, TensorInfo, aligned, encode_header

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT16, _INT32, _STRING, _ARRAY = 2, 5, 8, 9


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF file ``path``."""
    with path.open("rb") as stream:
        return parse_header(stream, file_size=path.stat().st_size, what=path.name)


def read_entries(data: bytes) -> list[Entry]:
    """The metadata of the GGUF file ``data``, as they are encoded there."""
    (count,) = struct.unpack_from("<Q", data, 16)
    position, entries = 24, []
    for _ in range(count):
        (size,) = struct.unpack_from("<Q", data, position)
        key = data[position + 8 : position + 8 + size].decode()
        position += 8 + size
        (kind,) = struct.unpack_from("<I", data, position)
        end = _end(data, position + 4, kind)
        entries.append(Entry(key, kind, data[position + 4 : end]))
        position = end
    return entries


def _end(data: bytes, position: int, kind: int) -> int:
    if kind == _STRING:
        return position + 8 + int(struct.unpack_from("<Q", data, position)[0])
    if kind != _ARRAY:
        return position + _SIZES[kind]
    item, count = struct.unpack_from("<IQ", data, position)
    position += 12
    for _ in range(count):
        position = _end(data, position, item)
    return position


def split_entries(number: int, count: int, tensors: int) -> list[Entry]:
    """What a shard states, of the types that llama.cpp gives them."""
    return [
        Entry("split.no", _UINT16, struct.pack("<H", number)),
        Entry("split.count", _UINT16, struct.pack("<H", count)),
        Entry("split.tensors.count", _INT32, struct.pack("<i", tensors)),
    ]


def rewrite_gguf(
    model: Path,
    out: Path,
    entries: Sequence[Entry] = (),
    *,
    tensors: Sequence[GgufTensor] | None = None,
    keep: bool = True,
) -> Path:
    """``model`` with further ``entries``, or without its own; of its tensors only ``tensors``."""
    data = model.read_bytes()
    kept = read_header(model).tensors if tensors is None else tensors
    new = {entry.key for entry in entries}
    old = [entry for entry in read_entries(data) if entry.key not in new] if keep else []
    infos, parts, offset = [], [], 0
    for tensor in kept:
        content = data[tensor.offset : tensor.offset + tensor.size]
        infos.append(TensorInfo(tensor.name, tensor.type, tensor.shape[::-1], offset))
        parts.append(content.ljust(aligned(len(content)), b"\0"))
        offset += len(parts[-1])
    out.write_bytes(encode_header([*old, *entries], infos) + b"".join(parts))
    return out


def shard_name(stem: str, number: int, count: int) -> str:
    """The name of shard ``number``, from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def split_gguf(model: Path, folder: Path, stem: str, count: int) -> list[Path]:
    """Split ``model`` into ``count`` shards in ``folder``; all metadata are in the first."""
    tensors = read_header(model).tensors
    share = -(-len(tensors) // count)
    return [
        rewrite_gguf(
            model,
            folder / shard_name(stem, number + 1, count),
            split_entries(number, count, len(tensors)),
            tensors=tensors[number * share : (number + 1) * share],
            keep=number == 0,
        )
        for number in range(count)
    ]
