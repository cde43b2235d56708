"""The header of a safetensors file, read as strictly as the format allows.

A file is 8 bytes (little-endian size of the JSON), the JSON, and the tensors' data: one dense
range each, together covering everything to the end of the file, with no hole and no overlap
(https://github.com/huggingface/safetensors, "Format"). Whoever holds to that cannot hide
another file in this one, nor make two readers see two different models.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packager.errors import (
    MalformedError,
    TrailingDataError,
    TruncatedError,
    UnsafeContentError,
)
from packager.format.fields import Fields
from packager.format.foreign_json import parse_json_object
from packager.format.relpath import check_relpath

PREFIX_SIZE = 8
MAX_HEADER_SIZE = 100_000_000  # bytes of JSON; the limit of the reference implementation
MAX_INDEX_SIZE = 100_000_000
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 16
MAX_DIMENSION = 2**40

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

# What torch.save, zip, HDF5, 7z, gzip, tar and llama.cpp put first.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive (as torch.save writes)"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"GGUF", "a GGUF file"),
    (b"version ", "a Git LFS pointer, not the weights themselves"),
)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a shard. ``begin`` and ``end`` are byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.end - self.begin


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a shard holds: ``tensors`` in the order of their data, and free-form ``metadata``."""

    tensors: tuple[TensorEntry, ...]
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ShardIndex:
    """``model.safetensors.index.json``: which shard holds which tensor."""

    shard_of: Mapping[str, str]

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards' names, relative to the index, each once."""
        return tuple(sorted(set(self.shard_of.values())))


def header_end(prefix: bytes, *, file_size: int, what: str) -> int:
    """Where the header ends and the data begin, from the first 8 bytes of a file.

    Raises ``TruncatedError`` for a file too short to be one, ``UnsafeContentError`` if it is
    another kind of file under this name, ``MalformedError`` for an impossible size.
    """
    if len(prefix) < PREFIX_SIZE:
        raise TruncatedError(f"{what}: {file_size} bytes, too short for a safetensors file")
    size = int.from_bytes(prefix[:PREFIX_SIZE], "little")
    if 2 <= size <= min(MAX_HEADER_SIZE, file_size - PREFIX_SIZE):
        return PREFIX_SIZE + size
    for magic, kind in _OTHER_FORMATS:
        if prefix.startswith(magic):
            raise UnsafeContentError(
                f"{what}: named as safetensors, but it is {kind}",
                hint="take the safetensors weights of this model, or convert them on a host "
                "that may run untrusted code",
            )
    if 2 <= size <= MAX_HEADER_SIZE:
        raise TruncatedError(
            f"{what}: the header takes {size} bytes, but the file has {file_size} in all"
        )
    raise MalformedError(f"{what}: a header of {size} bytes (at least 2, at most 100 MB)")


def parse_header(header: bytes, *, file_size: int, what: str) -> SafetensorsHeader:
    """Parse ``header``, the first ``header_end`` bytes of a file of ``file_size`` bytes.

    Raises ``MalformedError``, ``TruncatedError`` or ``UnsafeContentError``, naming ``what``.
    """
    end = header_end(header[:PREFIX_SIZE], file_size=file_size, what=what)
    if len(header) != end:
        raise TruncatedError(f"{what}: {len(header)} bytes of a header of {end}")
    text = header[PREFIX_SIZE:]
    if not text.startswith(b"{"):
        raise MalformedError(f"{what}: the header does not begin with '{{'")
    # JSON allows the spaces behind it with which writers align the data.
    members = parse_json_object(text, what=what)
    metadata = _metadata(members.pop("__metadata__", {}), what)
    entries = [_entry(name, value, end, what) for name, value in members.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_dense(entries, end, file_size, what)
    return SafetensorsHeader(tuple(entries), metadata)


def parse_index(data: bytes, *, what: str) -> ShardIndex:
    """Parse the index of a model in several shards.

    Raises ``MalformedError`` for a broken document and ``UnsafeContentError`` for a shard whose
    path leads outside the model's folder.
    """
    fields = Fields.of(parse_json_object(data, what=what), what)
    weights = fields.mapping("weight_map")
    shard_of = {}
    for name in weights.values:
        _check_name(name, what)
        shard_of[name] = check_relpath(weights.text(name))
    if not shard_of:
        raise fields.refuse("weight_map", "is empty")
    return ShardIndex(shard_of)


def check_index(index: ShardIndex, shards: Mapping[str, SafetensorsHeader], *, what: str) -> None:
    """Refuse an index and shards that do not hold exactly the same tensors.

    Raises ``MalformedError`` naming the tensor, or the shard that is not there.
    """
    for shard in index.shards:
        if shard not in shards:
            raise MalformedError(f"{what}: the shard {shard} is not there")
    check_unique((shard, shards[shard]) for shard in index.shards)
    held = {entry.name: shard for shard in index.shards for entry in shards[shard].tensors}
    for name, shard in index.shard_of.items():
        if held.get(name) != shard:
            raise MalformedError(f"{what}: {shard} lacks the tensor {name!a}")
    for name, shard in held.items():
        if name not in index.shard_of:
            raise MalformedError(f"{what}: the tensor {name!a} of {shard} is not in the index")


def check_unique(shards: Iterable[tuple[str, SafetensorsHeader]]) -> None:
    """Refuse a tensor that two shards hold; raises ``MalformedError``."""
    held: dict[str, str] = {}
    for shard, header in shards:
        for entry in header.tensors:
            if entry.name in held:
                raise MalformedError(
                    f"{shard}: the tensor {entry.name!a} is in {held[entry.name]} too"
                )
            held[entry.name] = shard


def _metadata(value: object, what: str) -> tuple[tuple[str, str], ...]:
    fields = Fields.of(value, f"{what}: __metadata__")
    for key, text in fields.values.items():
        if not isinstance(text, str):
            raise fields.refuse(key, "expected text")
    return tuple((key, str(text)) for key, text in fields.values.items())


def _entry(name: str, value: object, data_begin: int, what: str) -> TensorEntry:
    _check_name(name, what)
    fields = Fields.of(value, f"{what}: {name}")
    fields.only("dtype", "shape", "data_offsets")
    dtype = fields.text("dtype")
    if dtype not in DTYPE_BITS:
        raise fields.refuse("dtype", f"unknown type {dtype[:40]!a}")
    shape = _integers(fields, "shape", MAX_DIMENSION)
    if len(shape) > MAX_DIMENSIONS:
        raise fields.refuse("shape", f"{len(shape)} dimensions, more than {MAX_DIMENSIONS}")
    offsets = _integers(fields, "data_offsets", 2**53)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fields.refuse("data_offsets", "expected a begin and an end not before it")
    bits = DTYPE_BITS[dtype]
    for dimension in shape:
        bits *= dimension
    if bits != 8 * (offsets[1] - offsets[0]):
        raise fields.refuse(
            "data_offsets", f"{offsets[1] - offsets[0]} bytes do not hold {dtype} {list(shape)}"
        )
    return TensorEntry(name, dtype, shape, data_begin + offsets[0], data_begin + offsets[1])


def _integers(fields: Fields, key: str, most: int) -> tuple[int, ...]:
    numbers = []
    for index, item in enumerate(fields.items(key)):
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= most:
            raise fields.refuse(f"{key}[{index}]", f"expected an integer from 0 to {most}")
        numbers.append(item)
    return tuple(numbers)


def _check_name(name: str, what: str) -> None:
    if not name or len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise MalformedError(f"{what}: a tensor's name is empty or over {MAX_NAME_BYTES} bytes")
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise MalformedError(f"{what}: the tensor name {name[:80]!a} holds control characters")
    if ".." in name or "/" in name or "\\" in name:
        raise MalformedError(f"{what}: the tensor name {name[:80]!a} looks like a path")


def _check_dense(entries: list[TensorEntry], data_begin: int, file_size: int, what: str) -> None:
    position = data_begin
    for entry in entries:
        if entry.begin != position:
            fault = "overlap those" if entry.begin < position else "leave a hole after those"
            raise MalformedError(f"{what}: the data of {entry.name!a} {fault} before them")
        position = entry.end
    if position > file_size:
        raise TruncatedError(f"{what}: {file_size} bytes, but its tensors need {position}")
    if position < file_size:
        raise TrailingDataError(
            f"{what}: {file_size - position} bytes after the last tensor belong to none"
        )
