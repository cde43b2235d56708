"""A GGUF model split into shards: what their names say, and whether they are one whole model.

The convention is that of llama.cpp's ``gguf-split`` (``tools/gguf-split/README.md``): shards are
called ``STEM-00001-of-00003.gguf``; each states ``split.no``, from 0, ``split.count`` and
``split.tensors.count``, the tensors of all together. Only the first needs to hold other metadata.
Engines are given the first, and find the others by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packager.errors import IntegrityError, MalformedError
from packager.format.gguf_header import MAX_TENSORS, GgufHeader

MAX_SHARDS = (1 << 16) - 1
_SHARD = re.compile(r"(?P<stem>.*[^/])-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf\Z")
_ALL_PARTS = "bring all parts of the split model"


@dataclass(frozen=True)
class ShardName:
    """What the name of a shard says: it is number ``number``, from 1, of ``count``."""

    stem: str
    number: int
    count: int

    @classmethod
    def parse(cls, path: str) -> ShardName | None:
        """What the name ``path`` says, or ``None`` where it is no shard's."""
        match = _SHARD.match(path)
        return match and cls(match["stem"], int(match["number"]), int(match["count"]))

    def shards(self) -> tuple[str, ...]:
        """The paths of all shards, in order; raises ``MalformedError`` for a name out of bounds."""
        if not 1 <= self.number <= self.count <= MAX_SHARDS:
            raise MalformedError(
                f"{self.stem}: a shard that is called number {self.number} of {self.count}"
            )
        return tuple(
            f"{self.stem}-{number:05d}-of-{self.count:05d}.gguf"
            for number in range(1, self.count + 1)
        )


def check_parts(headers: Iterable[tuple[str, GgufHeader]]) -> None:
    """Refuse what is not one whole model: a part missing, too many, or of another split.

    ``headers`` are the parts by name, in the order of their names, by which engines go; a model
    of one part need not say so. Raises ``IntegrityError`` naming what is amiss.
    """
    parts = tuple(headers)
    for place, (name, header) in enumerate(parts):
        count = _number(name, header, "split.count", 1)
        if max(1, count) != len(parts):
            raise IntegrityError(
                f"{name}: says that it is one of {count} parts of a model; here it is one of"
                f" {len(parts)}",
                hint=_ALL_PARTS,
            )
        number = _number(name, header, "split.no", 0 if len(parts) == 1 else None)
        if number != place:
            raise IntegrityError(
                f"{name}: says that it is part {number + 1} of the model, and is called"
                f" part {place + 1}"
            )
    if len(parts) > 1:
        _check_tensors(parts)
        _check_architecture(parts)


def _number(name: str, header: GgufHeader, key: str, default: int | None) -> int:
    value = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TENSORS:
        raise MalformedError(f"{name}: {key}: not a sensible number")
    return value


def _check_tensors(parts: tuple[tuple[str, GgufHeader], ...]) -> None:
    """Each part states how many tensors there are, and no two hold the same one."""
    holders: dict[str, str] = {}
    for name, header in parts:
        for tensor in header.tensors:
            if tensor.name in holders:
                raise MalformedError(
                    f"{name}: the tensor {tensor.name!a} is in {holders[tensor.name]} too"
                )
            holders[tensor.name] = name
    for name, header in parts:
        stated = _number(name, header, "split.tensors.count", None)
        if stated != len(holders):
            raise MalformedError(
                f"{name}: says that the parts hold {stated} tensors; they hold {len(holders)}"
            )


def _check_architecture(parts: tuple[tuple[str, GgufHeader], ...]) -> None:
    """Only the first part has to state the architecture; the others do not contradict it."""
    first, header = parts[0]
    try:
        architecture = header.architecture
    except MalformedError as error:
        raise MalformedError(f"{first}: {error.message}") from None
    for name, other in parts[1:]:
        stated = other.metadata.get("general.architecture", architecture)
        if stated != architecture:
            raise IntegrityError(
                f"{name}: of the architecture {str(stated)[:60]!a}, and {first} of"
                f" {architecture[:60]!a}"
            )
