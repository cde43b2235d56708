"""The header of a GGUF file, read strictly and within bounds before any engine opens it.

The layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3): magic,
version, counts, key-value pairs, tensor infos, padding, and the tensors' data, one after the
other at multiples of ``general.alignment``. Engines parse this in C++; a count or an offset
that lies is refused here first.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from packager.errors import MalformedError, TrailingDataError, TruncatedError
from packager.format.ggml_types import BY_NUMBER, GgmlType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_KEYS = 4096
MAX_TENSORS = 1 << 17
MAX_KEY_BYTES = 1024
MAX_NAME_BYTES = 127
MAX_STRING_BYTES = 16 << 20
MAX_ARRAY_ITEMS = 1 << 24
MAX_ARRAY_NESTING = 2
MAX_HEADER_BYTES = 1 << 27  # of vocabularies, the largest take a tenth of it
MAX_DIMENSION = 1 << 40

# Numbers of the value types, with the struct format of the plain ones.
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_UINT16, _UINT32, _BOOL, _STRING, _ARRAY = 2, 4, 7, 8, 9


@dataclass(frozen=True)
class GgufArray:
    """An array among the metadata; ``items`` is ``None`` unless it was asked for."""

    item_type: int
    count: int
    items: tuple[object, ...] | None


MetadataValue = int | float | bool | str | GgufArray


@dataclass(frozen=True)
class GgufTensor:
    """One tensor. ``shape`` is (columns, rows, ...), as ggml has it; ``offset`` is in the file."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file holds."""

    version: int
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[GgufTensor, ...]
    data_begin: int

    @property
    def architecture(self) -> str:
        """``general.architecture``; raises ``MalformedError`` where it is missing."""
        value = self.metadata.get("general.architecture")
        if not isinstance(value, str):
            raise MalformedError("general.architecture: missing, or not text")
        return value

    @property
    def parameters(self) -> int:
        """How many weights the tensors hold together."""
        return sum(_product(tensor.shape) for tensor in self.tensors)


def parse_header(
    stream: BinaryIO, *, file_size: int, what: str, arrays: Collection[str] = ()
) -> GgufHeader:
    """Read the header at the start of ``stream``, a file of ``file_size`` bytes.

    The items of an array are kept only for the keys named in ``arrays``. Raises
    ``TruncatedError``, ``TrailingDataError`` or ``MalformedError``, naming ``what``.
    """
    reader = _Reader(stream, file_size, what)
    version = _read_version(reader)
    tensor_count = reader.count(MAX_TENSORS, "tensors")
    key_count = reader.count(MAX_KEYS, "keys")
    metadata = _read_metadata(reader, key_count, frozenset(arrays))
    alignment = _alignment(reader, metadata)
    infos = [_read_tensor_info(reader) for _ in range(tensor_count)]
    data_begin = _aligned(reader.position, alignment)
    tensors = _place(reader, infos, data_begin, alignment)
    return GgufHeader(
        version, {key: value for key, (_, value) in metadata.items()}, tensors, data_begin
    )


class _Reader:
    """Reads forward, never past the file's end nor the header's limit."""

    def __init__(self, stream: BinaryIO, file_size: int, what: str) -> None:
        self._stream = stream
        self.file_size = file_size
        self.what = what
        self.position = 0

    def refuse(self, fact: str) -> MalformedError:
        return MalformedError(f"{self.what}: {fact}")

    def bytes(self, size: int) -> bytes:
        if self.position + size > self.file_size:
            raise TruncatedError(f"{self.what}: the header runs past the end of the file")
        if self.position + size > MAX_HEADER_BYTES:
            raise self.refuse(f"a header over {MAX_HEADER_BYTES} bytes")
        data = self._stream.read(size)
        if len(data) != size:
            raise TruncatedError(f"{self.what}: ends within its header")
        self.position += size
        return data

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.bytes(struct.calcsize(layout)))[0])

    def count(self, most: int, of: str) -> int:
        value = self.number("<Q")
        if value > most:
            raise self.refuse(f"{value} {of}, more than the limit of {most}")
        return value

    def text(self, most: int, of: str) -> str:
        size = self.number("<Q")
        if size > min(most, self.file_size):
            raise self.refuse(f"{of} of {size} bytes, more than the limit of {most}")
        try:
            return self.bytes(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{of} is not UTF-8") from None


def _read_version(reader: _Reader) -> int:
    if reader.bytes(4) != MAGIC:
        raise reader.refuse("not a GGUF file (no GGUF magic)")
    version = reader.number("<I")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        raise reader.refuse("a big-endian GGUF file, which the engine here cannot read")
    raise reader.refuse(f"GGUF version {version}; known are 2 and 3")


def _read_metadata(
    reader: _Reader, count: int, arrays: frozenset[str]
) -> dict[str, tuple[int, MetadataValue]]:
    metadata: dict[str, tuple[int, MetadataValue]] = {}
    for _ in range(count):
        key = reader.text(MAX_KEY_BYTES, "a key")
        if not key or key in metadata:
            raise reader.refuse(f"the key {key!a} is empty or there twice")
        kind = reader.number("<I")
        if kind == _ARRAY:
            metadata[key] = kind, _read_array(reader, key, key in arrays, 1)
        else:
            metadata[key] = kind, _read_value(reader, kind, key)
    return metadata


def _read_value(reader: _Reader, kind: int, key: str) -> int | float | bool | str:
    if kind == _STRING:
        return reader.text(MAX_STRING_BYTES, f"the value of {key!a}")
    if kind not in _SCALARS:
        raise reader.refuse(f"the value of {key!a} has the unknown type {kind}")
    layout = _SCALARS[kind]
    value: int | float = struct.unpack(layout, reader.bytes(struct.calcsize(layout)))[0]
    if kind == _BOOL:
        if value not in (0, 1):
            raise reader.refuse(f"the value of {key!a} is neither true nor false")
        return bool(value)
    return value


def _read_array(reader: _Reader, key: str, keep: bool, depth: int) -> GgufArray:
    kind = reader.number("<I")
    count = reader.count(MAX_ARRAY_ITEMS, f"items in {key!a}")
    if kind in _SCALARS:
        layout = _SCALARS[kind]
        data = reader.bytes(count * struct.calcsize(layout))
        items = struct.unpack(f"<{count}{layout[1]}", data) if keep else None
        return GgufArray(kind, count, items)
    if kind == _ARRAY and depth >= MAX_ARRAY_NESTING:
        raise reader.refuse(f"arrays nested too deep in {key!a}")
    if kind not in (_STRING, _ARRAY):
        raise reader.refuse(f"the items of {key!a} have the unknown type {kind}")
    kept: list[object] = []
    for _ in range(count):
        item = (
            reader.text(MAX_STRING_BYTES, f"an item of {key!a}")
            if kind == _STRING
            else _read_array(reader, key, keep, depth + 1)
        )
        if keep:
            kept.append(item)
    return GgufArray(kind, count, tuple(kept) if keep else None)


def _alignment(reader: _Reader, metadata: Mapping[str, tuple[int, MetadataValue]]) -> int:
    kind, value = metadata.get("general.alignment", (_UINT32, DEFAULT_ALIGNMENT))
    if kind != _UINT32 or not isinstance(value, int):
        raise reader.refuse("general.alignment is not a 32-bit unsigned integer")
    if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise reader.refuse(f"general.alignment is {value}, not a power of two up to 65536")
    return value


@dataclass(frozen=True)
class _TensorInfo:
    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int


def _read_tensor_info(reader: _Reader) -> _TensorInfo:
    name = reader.text(MAX_NAME_BYTES, "a tensor's name")
    dimensions = reader.number("<I")
    if not name or not 1 <= dimensions <= 4:
        raise reader.refuse(f"the tensor {name!a} has no name, or {dimensions} dimensions")
    shape = tuple(reader.number("<Q") for _ in range(dimensions))
    if any(not 1 <= dimension <= MAX_DIMENSION for dimension in shape):
        raise reader.refuse(f"the tensor {name!a} has an impossible shape {list(shape)}")
    number = reader.number("<I")
    if number not in BY_NUMBER:
        raise reader.refuse(f"the tensor {name!a} has the unknown type {number}")
    kind = BY_NUMBER[number]
    if shape[0] % kind.block:
        raise reader.refuse(
            f"the tensor {name!a}: rows of {shape[0]} are not blocks of {kind.name}"
        )
    return _TensorInfo(name, kind, shape, reader.number("<Q"))


def _place(
    reader: _Reader, infos: list[_TensorInfo], data_begin: int, alignment: int
) -> tuple[GgufTensor, ...]:
    """Check that the tensors fill the file, one after the other, to its end."""
    tensors: dict[str, GgufTensor] = {}
    position = end = data_begin
    for info in infos:
        if info.name in tensors:
            raise reader.refuse(f"the tensor {info.name!a} is there twice")
        if data_begin + info.offset != position:
            raise reader.refuse(
                f"the tensor {info.name!a} begins at {info.offset}, expected "
                f"{position - data_begin}"
            )
        size = info.type.row_size(_product(info.shape))
        end = position + size
        if end > reader.file_size:
            raise TruncatedError(
                f"{reader.what}: the tensor {info.name!a} ends at byte {end}, the file has "
                f"{reader.file_size}"
            )
        tensors[info.name] = GgufTensor(info.name, info.type, info.shape, position, size)
        position = _aligned(end, alignment)
    if reader.file_size > position:
        raise TrailingDataError(
            f"{reader.what}: {reader.file_size - position} bytes after the last tensor"
        )
    return tuple(tensors.values())


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for dimension in shape:
        product *= dimension
    return product
