"""The importance matrix: how large the inputs of each weight tensor were on a text.

A weight that multiplies large inputs deserves a smaller error; ggml's quantization weighs errors
with the mean squares of the columns. The file is llama.cpp's own, so a matrix made there serves
here, and the other way round.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packager.errors import IntegrityError, MalformedError
from packager.format import imatrix
from packager.format.digest import Digest
from packager.format.imatrix import ImatrixEntry, parse_imatrix_header
from packager.quantize.gguf_writer import TensorInfo, aligned, encode_header, text, texts, uint32
from packager.quantize.types import F32
from packager.store.atomic import naming_refusals, open_regular

MAX_MATRIX_SIZE = 4 << 30
_MAX_COUNT = 1 << 40  # tokens


@dataclass(frozen=True, eq=False)
class TensorImportance:
    """What went into one weight tensor.

    ``sums`` are float32 (experts, columns): of the squared input, over the tokens. ``counts`` are
    int64 (experts,): how many tokens. A tensor that is not of experts has one row.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    def means(self, expert: int) -> NDArray[np.float32]:
        """The mean squares that weigh ``expert``'s columns, float32 (columns,).

        All ones for an expert that no token reached, as ``llama-quantize`` has it. Where there
        is one row, it is for all.
        """
        row = expert if len(self.sums) > 1 else 0
        sums: NDArray[np.float32] = self.sums[row]
        count = np.float32(self.counts[row])
        return sums / count if count else np.ones_like(sums)

    def of_experts(self, experts: int) -> TensorImportance:
        """The same with a row for each of ``experts``, where one count is for all of them."""
        return TensorImportance(
            self.sums.reshape(experts, -1), np.broadcast_to(self.counts, experts)
        )


@dataclass(frozen=True, eq=False)
class ImportanceMatrix:
    """The importance of weight tensors, by the name that they have in a GGUF file.

    ``datasets`` are the texts it was gathered on, in ``chunk_count`` chunks of ``chunk_size``
    tokens.
    """

    tensors: Mapping[str, TensorImportance]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int

    @cached_property
    def digest(self) -> Digest:
        """What says that two matrices are the same: the digest of :meth:`encode`."""
        state = hashlib.sha256()
        for piece in self._pieces():  # not at once: a mixture of experts has a gigabyte of it
            state.update(piece)
        return Digest(state.hexdigest())

    def encode(self) -> bytes:
        """The file that ``llama-imatrix`` writes for these numbers, byte for byte."""
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        arrays = {
            name + suffix: values
            for name, entry in sorted(self.tensors.items())
            for suffix, values in (
                (imatrix.SUMS_SUFFIX, entry.sums),
                (imatrix.COUNTS_SUFFIX, entry.counts.reshape(-1, 1)),
            )
        }
        infos: list[TensorInfo] = []
        offset = 0
        for name, values in arrays.items():
            infos.append(TensorInfo(name, F32, _without_ones(values.shape), offset))
            offset = aligned(offset + infos[-1].size)
        entries = (
            text("general.type", imatrix.FILE_TYPE),
            texts(imatrix.DATASETS_KEY, self.datasets),
            uint32(imatrix.CHUNK_COUNT_KEY, self.chunk_count),
            uint32(imatrix.CHUNK_SIZE_KEY, self.chunk_size),
        )
        yield encode_header(entries, infos)
        for values in arrays.values():
            data = values.astype("<f4").tobytes()
            yield data.ljust(aligned(len(data)), b"\0")


def read_matrix(path: Path) -> ImportanceMatrix:
    """Read the importance matrix in the file ``path``, ours or llama.cpp's.

    Raises ``MalformedError``, ``TruncatedError`` or ``TrailingDataError`` for a broken one,
    ``IntegrityError`` for what is no regular file, ``HostError`` where the system refuses.
    """
    return parse_matrix(read_matrix_bytes(path), what=path.name)


def read_matrix_bytes(path: Path) -> bytes:
    """All of the file ``path``; raises ``IntegrityError`` for what is too large to be a matrix."""
    with open_regular(path) as descriptor, naming_refusals(path):
        size = os.fstat(descriptor).st_size
        if size > MAX_MATRIX_SIZE:
            raise IntegrityError(f"{path}: larger than the limit of {MAX_MATRIX_SIZE} bytes")
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return stream.read(size)


def parse_matrix(data: bytes, *, what: str) -> ImportanceMatrix:
    """The importance matrix in ``data``, called ``what`` in errors; raises ``MalformedError``."""
    header = parse_imatrix_header(io.BytesIO(data), file_size=len(data), what=what)
    return ImportanceMatrix(
        tensors={entry.name: _read_entry(data, entry, what) for entry in header.entries},
        datasets=header.datasets,
        chunk_count=header.chunk_count,
        chunk_size=header.chunk_size,
    )


def _read_entry(data: bytes, entry: ImatrixEntry, what: str) -> TensorImportance:
    sums = np.frombuffer(data, "<f4", entry.experts * entry.columns, entry.sums.offset)
    counts = np.frombuffer(data, "<f4", entry.experts, entry.counts.offset)
    if not (np.isfinite(sums).all() and (sums >= 0).all()):
        raise MalformedError(f"{what}: {entry.name!a}: a sum of squares that is none")
    if not ((counts >= 0) & (counts <= _MAX_COUNT)).all():
        raise MalformedError(f"{what}: {entry.name!a}: a count that is none")
    # llama.cpp rounds what the file has as float32.
    return TensorImportance(
        sums.reshape(entry.experts, entry.columns), np.rint(counts).astype(np.int64)
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """ggml writes no dimension of one beyond the first."""
    rows, columns = shape
    return (rows, columns) if rows > 1 else (columns,)
