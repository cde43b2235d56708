"""llama.cpp's importance matrix file, read strictly: where its numbers are, before any is read.

A GGUF file (``tools/imatrix/imatrix.cpp``, ``common/imatrix-loader.cpp``) with two float32
tensors for each weight tensor NAME of a model: ``NAME.in_sum2``, for each column the sum over
the tokens of the squared input, and ``NAME.counts``, how many tokens that were. A tensor of
experts has a row, and a count, for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from packager.errors import MalformedError
from packager.format.ggml_types import BY_NAME
from packager.format.gguf_header import (
    MAGIC,
    GgufArray,
    GgufHeader,
    GgufTensor,
    MetadataValue,
    parse_header,
)

FILE_TYPE = "imatrix"
DATASETS_KEY = "imatrix.datasets"
CHUNK_COUNT_KEY = "imatrix.chunk_count"
CHUNK_SIZE_KEY = "imatrix.chunk_size"
SUMS_SUFFIX = ".in_sum2"
COUNTS_SUFFIX = ".counts"

# A legacy file's first four bytes are its number of entries, far below those of the magic.
_FROM_LEGACY = "llama-imatrix --in-file OLD.dat -o NEW.gguf makes a GGUF file of it"
_MAX_NUMBER = (1 << 32) - 1


@dataclass(frozen=True)
class ImatrixEntry:
    """Where the numbers of one weight tensor are: ``experts`` rows of ``columns`` sums."""

    name: str
    experts: int
    columns: int
    sums: GgufTensor
    counts: GgufTensor


@dataclass(frozen=True)
class ImatrixHeader:
    """What an importance matrix file holds: ``chunk_count`` chunks of ``chunk_size`` tokens."""

    entries: tuple[ImatrixEntry, ...]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int


def parse_imatrix_header(stream: BinaryIO, *, file_size: int, what: str) -> ImatrixHeader:
    """Read the header at the start of ``stream``, a file of ``file_size`` bytes.

    Raises ``TruncatedError``, ``TrailingDataError`` or ``MalformedError``, naming ``what``.
    """
    if stream.read(len(MAGIC)) != MAGIC:
        raise MalformedError(f"{what}: no importance matrix in GGUF form", hint=_FROM_LEGACY)
    stream.seek(0)
    header = parse_header(stream, file_size=file_size, what=what, arrays=(DATASETS_KEY,))
    if header.metadata.get("general.type") != FILE_TYPE:
        raise MalformedError(f"{what}: a GGUF file, but no importance matrix")
    return ImatrixHeader(
        entries=_pair(header.tensors, what),
        datasets=_datasets(header, what),
        chunk_count=_number(header.metadata, CHUNK_COUNT_KEY, what),
        chunk_size=_number(header.metadata, CHUNK_SIZE_KEY, what),
    )


def _pair(tensors: Iterable[GgufTensor], what: str) -> tuple[ImatrixEntry, ...]:
    """The entries in order of name, each of its two tensors."""
    by_name = {tensor.name: tensor for tensor in tensors}
    names = sorted({_weight_name(name, what) for name in by_name})
    if not names:
        raise MalformedError(f"{what}: an importance matrix without entries")
    return tuple(
        _entry(name, by_name.get(name + SUMS_SUFFIX), by_name.get(name + COUNTS_SUFFIX), what)
        for name in names
    )


def _weight_name(name: str, what: str) -> str:
    for suffix in (SUMS_SUFFIX, COUNTS_SUFFIX):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    raise MalformedError(f"{what}: {name!a} is neither sums nor counts of a tensor")


def _entry(
    name: str, sums: GgufTensor | None, counts: GgufTensor | None, what: str
) -> ImatrixEntry:
    if sums is None or counts is None:
        raise MalformedError(f"{what}: {name!a} lacks its {'counts' if sums else 'sums'}")
    if sums.type != BY_NAME["F32"] or counts.type != BY_NAME["F32"]:
        raise MalformedError(f"{what}: {name!a}: sums and counts are not float32")
    values, experts = _elements(sums), _elements(counts)
    if values % experts:
        raise MalformedError(f"{what}: {name!a}: {values} sums for {experts} counts")
    return ImatrixEntry(name, experts, values // experts, sums, counts)


def _elements(tensor: GgufTensor) -> int:
    return tensor.size // tensor.type.block_size


def _datasets(header: GgufHeader, what: str) -> tuple[str, ...]:
    value = header.metadata.get(DATASETS_KEY)
    items = value.items if isinstance(value, GgufArray) else None
    if items is None or not all(isinstance(item, str) for item in items):
        raise MalformedError(f"{what}: {DATASETS_KEY}: missing, or no array of text")
    return tuple(str(item) for item in items)


def _number(metadata: Mapping[str, MetadataValue], key: str, what: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise MalformedError(f"{what}: {key}: missing, or not a sensible number")
    return value
