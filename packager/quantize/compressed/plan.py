"""Where every tensor of a variant goes, shard by shard, before a byte of weights is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import MalformedError
from packager.format.safetensors_header import TensorEntry
from packager.quantize.compressed.encoding import code_size
from packager.quantize.compressed.linears import Choice, choose
from packager.quantize.compressed.schemes import FLOAT, Scheme, quantization_config
from packager.quantize.prequantized import method_of, quantized_already
from packager.quantize.safetensors_writer import NewTensor, lay_out
from packager.quantize.source import (
    INDEX_NAME,
    SourceTensor,
    Stamp,
    read_documents,
    read_tensors,
    stamps_of,
)

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class Place:
    """Where a tensor of the source goes in its new file: the byte offset of its numbers, and that
    of their scales, which is ``None`` where the tensor stays as it is.
    """

    numbers: int
    scales: int | None = None


@dataclass(frozen=True)
class PlannedShard:
    """One file of a variant, called as the source's: ``header``, then the tensors of ``sources``
    at their ``places``, and ``ready`` bytes, by their offsets. ``size`` in bytes. ``stamps`` are
    those of the source's files when this was planned.
    """

    name: str
    scheme: Scheme
    sources: tuple[SourceTensor, ...]
    places: tuple[Place, ...]
    header: bytes
    ready: Mapping[int, bytes]
    size: int
    stamps: Mapping[Path, Stamp]

    @property
    def source_size(self) -> int:
        """Bytes of weights that will be read."""
        return sum(tensor.entry.size for tensor in self.sources)


@dataclass(frozen=True)
class PlannedVariant:
    """A model in one scheme: its ``shards``, and ``documents``, small files by name."""

    choice: Choice
    shards: tuple[PlannedShard, ...]
    documents: Mapping[str, bytes]


def plan_variant(files: Mapping[str, Path], scheme: Scheme) -> PlannedVariant:
    """Plan the model in ``files``, by their names in the repository, in ``scheme``.

    Raises ``UsageError`` for what cannot be quantized, ``MalformedError`` and
    ``UnsafeContentError`` for a source that is broken.
    """
    stamps = stamps_of(files.values())
    config = read_documents(files).config
    if method := method_of(config):
        raise quantized_already(method)
    tensors = read_tensors(files)
    choice = choose((tensor.entry for tensor in tensors.values()), scheme)
    held: dict[str, list[SourceTensor]] = {}
    for tensor in tensors.values():
        held.setdefault(tensor.shard, []).append(tensor)
    _check_names_are_free(tensors, choice, scheme)
    shards = tuple(_plan_shard(name, held[name], choice, scheme, stamps) for name in sorted(held))
    full = {**config, "quantization_config": quantization_config(scheme, choice.ignore)}
    documents = {CONFIG_NAME: _document(full, what=CONFIG_NAME)}
    if INDEX_NAME in files:
        documents[INDEX_NAME] = _document(_index(held, choice, scheme), what=INDEX_NAME)
    return PlannedVariant(choice, shards, documents)


def _check_names_are_free(
    tensors: Mapping[str, SourceTensor], choice: Choice, scheme: Scheme
) -> None:
    """Refuse a source that has tensors under the names that scales and shapes get."""
    for name in sorted(choice.quantized):
        for new in _new_tensors(tensors[name].entry, choice, scheme):
            if new.name != name and new.name in tensors:
                raise MalformedError(
                    f"{tensors[new.name].shard}: has {new.name} already, beside {name}, whose "
                    f"{scheme.name} goes there"
                )


def _plan_shard(
    name: str,
    tensors: Sequence[SourceTensor],
    choice: Choice,
    scheme: Scheme,
    stamps: Mapping[Path, Stamp],
) -> PlannedShard:
    new = {tensor.entry.name: _new_tensors(tensor.entry, choice, scheme) for tensor in tensors}
    file = lay_out((each for made in new.values() for each in made), what=name)
    places, ready = [], {}
    for tensor in tensors:
        numbers, *more = (file.positions[each.name] for each in new[tensor.entry.name])
        places.append(Place(numbers, *more[:1]))
        if len(more) > 1:
            ready[more[1]] = struct.pack("<2q", *tensor.entry.shape)
    return PlannedShard(
        name, scheme, tuple(tensors), tuple(places), file.header, ready, file.size, stamps
    )


def _new_tensors(entry: TensorEntry, choice: Choice, scheme: Scheme) -> tuple[NewTensor, ...]:
    """What becomes of the tensor ``entry``: its numbers, then the scales, then the shape."""
    if entry.name not in choice.quantized:
        return (NewTensor(entry.name, entry.dtype, entry.shape),)
    rows, columns = entry.shape
    scales = NewTensor(f"{entry.name}_scale", entry.dtype, (rows, scheme.groups(columns)))
    if not scheme.is_packed:
        dtype = "F8_E4M3" if scheme.kind == FLOAT else "I8"
        return NewTensor(entry.name, dtype, entry.shape), scales
    words = code_size(scheme, columns) // 4
    return (
        NewTensor(f"{entry.name}_packed", "I32", (rows, words)),
        scales,
        NewTensor(f"{entry.name}_shape", "I64", (2,)),
    )


def _index(
    held: Mapping[str, Iterable[SourceTensor]], choice: Choice, scheme: Scheme
) -> dict[str, object]:
    """The new ``model.safetensors.index.json``."""
    made = {
        new: shard
        for shard, tensors in held.items()
        for tensor in tensors
        for new in _new_tensors(tensor.entry, choice, scheme)
    }
    return {
        "metadata": {"total_size": sum(new.size for new in made)},
        "weight_map": {new.name: made[new] for new in sorted(made, key=lambda new: new.name)},
    }


def _document(value: Mapping[str, object], *, what: str) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        raise MalformedError(f"{what}: holds a number beyond the range of floats") from None
    return (text + "\n").encode("utf-8")
