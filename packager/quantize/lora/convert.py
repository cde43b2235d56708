"""From PEFT's adapter to llama.cpp's: ``NAME.lora_a`` and ``NAME.lora_b`` for each matrix changed.

After ``src/llama-adapter.cpp``, ``llama_adapter_lora_init_impl``: what it reads and checks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packager.errors import IntegrityError, TruncatedError, UsageError
from packager.format.foreign_json import parse_json_object
from packager.format.ggml_types import GgmlType
from packager.format.safetensors_header import TensorEntry
from packager.progress import Progress
from packager.quantize.architectures import find_architecture
from packager.quantize.config import parse_config
from packager.quantize.gguf_writer import (
    Entry,
    TensorInfo,
    aligned,
    encode_header,
    float32,
    text,
    uint32,
)
from packager.quantize.lora.config import ADAPTER_CONFIG, AdapterConfig, parse_adapter_config
from packager.quantize.lora.placing import PlacedPair, pair_up, place_pairs
from packager.quantize.metadata import QUANTIZATION_VERSION
from packager.quantize.source import MAX_CONFIG_SIZE, read_header
from packager.quantize.types import F16, F32
from packager.store.atomic import naming_refusals, open_regular, read_capped, write_all

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_FILE_TYPES = {F32.name: 0, F16.name: 1}  # ``enum llama_ftype``


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter matched with its model: the ``pairs`` of matrices, and what the file states.

    ``architecture`` is GGUF's name. ``alpha`` divided by the rank of a pair scales its product.
    """

    weights: Path
    pairs: tuple[PlacedPair, ...]
    architecture: str
    alpha: float

    @property
    def type(self) -> GgmlType:
        """F16 where all the adapter is, else F32: both hold what the source does, exactly."""
        halves = [entry for pair in self.pairs for entry in (pair.halves.a, pair.halves.b)]
        is_half = all(entry.dtype == "F16" for entry in halves)
        return F16 if is_half and all(pair.factor == 1.0 for pair in self.pairs) else F32


def read_adapter_config(files: Mapping[str, Path]) -> AdapterConfig:
    """The configuration of the adapter in ``files``; raises as :func:`parse_adapter_config`."""
    if ADAPTER_CONFIG not in files:
        raise UsageError(f"the adapter has no {ADAPTER_CONFIG}")
    data = read_capped(files[ADAPTER_CONFIG].resolve(), MAX_CONFIG_SIZE)
    return parse_adapter_config(parse_json_object(data, what=ADAPTER_CONFIG))


def read_adapter(files: Mapping[str, Path], model: Mapping[str, object]) -> Adapter:
    """Match the adapter in ``files`` with the model whose parsed ``config.json`` is ``model``.

    Raises ``UsageError`` for an adapter that llama.cpp cannot apply, ``MalformedError`` for one
    that is broken or made for another model.
    """
    config = read_adapter_config(files)
    architecture = find_architecture(model)
    shape = parse_config(model, architecture.dialect)
    if ADAPTER_WEIGHTS not in files:
        raise UsageError(f"the adapter has no {ADAPTER_WEIGHTS}")
    weights = files[ADAPTER_WEIGHTS]
    entries = read_header(weights, ADAPTER_WEIGHTS).tensors
    pairs = place_pairs(pair_up(entries), architecture, shape, config)
    return Adapter(weights, pairs, architecture.gguf_name, config.usual_alpha)


def write_adapter(adapter: Adapter, out: Path, *, name: str, progress: Progress) -> None:
    """Write ``adapter`` to ``out`` as a GGUF file; ``name`` becomes ``general.name``.

    Memory is that of the largest matrix. Raises ``IntegrityError`` for numbers that are not
    finite, ``NoSpaceError``, ``HostError``.
    """
    infos = tuple(_infos(adapter.pairs, adapter.type))
    header = encode_header(_entries(adapter, name), infos)
    size = len(header) + aligned(infos[-1].offset + infos[-1].size)
    with (
        naming_refusals(out),
        open_regular(adapter.weights.resolve()) as source,
        open(out, "wb") as stream,
        progress.task(f"convert {name}", size) as task,
    ):
        target = stream.fileno()
        os.posix_fallocate(target, 0, size)
        write_all(target, header, 0)
        for info, values in zip(infos, _matrices(adapter.pairs, source), strict=True):
            data = _encode(info, values)
            write_all(target, data, len(header) + info.offset)
            task.advance(len(data))


def _entries(adapter: Adapter, name: str) -> tuple[Entry, ...]:
    return (
        text("general.architecture", adapter.architecture),
        text("general.type", "adapter"),
        text("general.name", name),
        uint32("general.file_type", _FILE_TYPES[adapter.type.name]),
        uint32("general.quantization_version", QUANTIZATION_VERSION),
        text("adapter.type", "lora"),
        float32("adapter.lora.alpha", adapter.alpha),
    )


def _infos(pairs: Iterable[PlacedPair], kind: GgmlType) -> Iterator[TensorInfo]:
    offset = 0
    for pair in pairs:
        rank, inputs = pair.halves.a.shape
        for half, shape in (("a", (rank, inputs)), ("b", (pair.part.rows, rank))):
            info = TensorInfo(f"{pair.name}.lora_{half}", kind, shape, offset)
            yield info
            offset = aligned(offset + info.size)


def _matrices(pairs: Iterable[PlacedPair], source: int) -> Iterator[NDArray[np.float32]]:
    """A, then B, of each pair."""
    for pair in pairs:
        yield _read(source, pair.halves.a)
        with np.errstate(over="ignore"):
            arranged = pair.arrange(_read(source, pair.halves.b))
        _check_finite(arranged, pair.halves.b)  # its factor may go beyond single precision
        yield arranged


def _read(source: int, entry: TensorEntry) -> NDArray[np.float32]:
    """A tensor of the descriptor ``source``, widened."""
    data = bytearray(entry.size)
    done = 0
    while done < entry.size:
        count = os.preadv(source, [memoryview(data)[done:]], entry.begin + done)
        if count == 0:
            raise TruncatedError(f"{ADAPTER_WEIGHTS}: ends within the tensor {entry.name}")
        done += count
    if entry.dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[entry.dtype]).astype(np.float32)
    _check_finite(values, entry)
    return values.reshape(entry.shape)


def _check_finite(values: NDArray[np.float32], entry: TensorEntry) -> None:
    if not np.isfinite(values).all():
        raise IntegrityError(
            f"{ADAPTER_WEIGHTS}: {entry.name} holds what is infinite or not a number"
        )


def _encode(info: TensorInfo, values: NDArray[np.float32]) -> bytes:
    return values.astype("<f2" if info.type is F16 else "<f4").tobytes()
