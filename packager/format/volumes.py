"""How the payload is cut: chunks that have digests, volumes that travel, stripes across them.

A part of the index. Chunk j of every volume is stripe j; the parity volumes hold the sums of
stripes that :mod:`packager.format.parity` computes. Volumes are numbered from 0 within this
code, the parity volumes behind the payload's; names count each kind from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.parity import MAX_VOLUMES_WITH_PARITY
from packager.format.relpath import check_medium_name

MIN_CHUNK_SIZE = 1 << 16
MAX_CHUNK_SIZE = 1 << 22
MAX_PAYLOAD_SIZE = 1 << 44  # 16 TiB, 4 Mi chunks of 4 MiB
MAX_VOLUMES = 1 << 16


@dataclass(frozen=True)
class Payload:
    """The payload's size in bytes and the digest of each of its chunks, in order."""

    size: int
    chunk_size: int
    chunks: tuple[Digest, ...]

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """Offset and size of ``chunk``; only the last one may be short."""
        offset = chunk * self.chunk_size
        return offset, min(self.chunk_size, self.size - offset)

    def encode(self) -> dict[str, Json]:
        """The document that :func:`parse_payload` reads."""
        return {
            "size": self.size,
            "chunk_size": self.chunk_size,
            "chunks": [digest.hex for digest in self.chunks],
        }


@dataclass(frozen=True)
class Volume:
    """A piece of the payload as a file on a medium; ``offset`` is its place in the payload."""

    name: str
    size: int
    offset: int

    def encode(self) -> dict[str, Json]:
        """An entry of the list that :func:`parse_volumes` reads."""
        return {"name": self.name, "size": self.size}


@dataclass(frozen=True)
class ParityVolume:
    """Sums of stripes as a file on a medium: ``chunks`` has the digest of each, all whole."""

    name: str
    size: int
    chunks: tuple[Digest, ...]

    def encode(self) -> dict[str, Json]:
        """An entry of the list that :func:`parse_parity` reads."""
        chunks: list[Json] = [digest.hex for digest in self.chunks]
        return {"name": self.name, "size": self.size, "chunks": chunks}


@dataclass(frozen=True)
class VolumeFile:
    """A volume of either kind as a file on a medium.

    ``chunks`` are the numbers of its chunks: those of the payload from 0, then those of the
    parity volumes, one after the other. ``size`` and ``chunk_size`` in bytes.
    """

    name: str
    size: int
    chunk_size: int
    chunks: range

    def place(self, chunk: int) -> tuple[int, int]:
        """Offset within the file, and size, of ``chunk``; only the last may be short."""
        offset = (chunk - self.chunks.start) * self.chunk_size
        return offset, min(self.chunk_size, self.size - offset)


def volume_files(
    payload: Payload, volumes: Sequence[Volume], parity: Sequence[ParityVolume]
) -> tuple[VolumeFile, ...]:
    """The volumes, then the parity volumes."""
    size = payload.chunk_size
    first = len(payload.chunks)
    stripes = stripe_count(payload, volumes)
    return (
        *(VolumeFile(v.name, v.size, size, volume_chunks(payload, v)) for v in volumes),
        *(
            VolumeFile(p.name, p.size, size, range(start, start + stripes))
            for start, p in zip(count(first, stripes), parity, strict=False)
        ),
    )


def volume_name(number: int) -> str:
    """The name of the payload's volume ``number``, counted from 1."""
    return f"payload.{number:05d}"


def parity_name(number: int) -> str:
    """The name of the parity volume ``number``, counted from 1."""
    return f"parity.{number:05d}"


def volume_chunks(payload: Payload, volume: Volume) -> range:
    """The numbers of the chunks that ``volume`` holds."""
    first = volume.offset // payload.chunk_size
    return range(first, first + -(-volume.size // payload.chunk_size))


def stripe_count(payload: Payload, volumes: Sequence[Volume]) -> int:
    """How many stripes there are: as many as the first volume has chunks."""
    return -(-volumes[0].size // payload.chunk_size)


def parse_payload(fields: Fields) -> Payload:
    """Read the payload's part of the index."""
    fields.only("size", "chunk_size", "chunks")
    size = fields.integer("size", least=1, most=MAX_PAYLOAD_SIZE)
    chunk_size = fields.integer("chunk_size", least=MIN_CHUNK_SIZE, most=MAX_CHUNK_SIZE)
    if chunk_size & (chunk_size - 1):
        raise fields.refuse("chunk_size", f"{chunk_size} is not a power of two")
    count = len(fields.items("chunks"))
    if count != -(-size // chunk_size):
        raise fields.refuse("chunks", f"{count} chunks do not make {size} bytes")
    return Payload(size, chunk_size, fields.digests("chunks"))


def parse_volumes(fields: Fields) -> tuple[Volume, ...]:
    """Read the list of volumes."""
    _check_count(fields, "volumes", MAX_VOLUMES)
    volumes: list[Volume] = []
    offset = 0
    for entry in fields.mappings("volumes"):
        entry.only("name", "size")
        _check_name(entry, volume_name(len(volumes) + 1))
        volumes.append(Volume(entry.text("name"), entry.integer("size", least=1), offset))
        offset += volumes[-1].size
    return tuple(volumes)


def parse_parity(fields: Fields) -> tuple[ParityVolume, ...]:
    """Read the list of parity volumes."""
    _check_count(fields, "parity", MAX_VOLUMES_WITH_PARITY)
    volumes: list[ParityVolume] = []
    for entry in fields.mappings("parity"):
        entry.only("name", "size", "chunks")
        _check_name(entry, parity_name(len(volumes) + 1))
        size = entry.integer("size", least=1, most=MAX_PAYLOAD_SIZE)
        volumes.append(ParityVolume(entry.text("name"), size, entry.digests("chunks")))
    return tuple(volumes)


def _check_count(fields: Fields, key: str, most: int) -> None:
    if len(fields.items(key)) > most:
        raise fields.refuse(key, f"more than {most} entries")


def _check_name(entry: Fields, expected: str) -> None:
    name = check_medium_name(entry.text("name"))
    if name != expected:
        raise entry.refuse("name", f"{name!a} stands where {expected} should")


def check_volumes(
    fields: Fields,
    payload: Payload,
    volumes: Sequence[Volume],
    parity: Sequence[ParityVolume],
) -> None:
    """Refuse, as what ``fields`` says, volumes and parity volumes that do not fit the payload."""
    if sum(volume.size for volume in volumes) != payload.size:
        raise fields.refuse("volumes", "do not add up to the payload's size")
    for volume in volumes[:-1]:
        if volume.size % payload.chunk_size or volume.size != volumes[0].size:
            raise fields.refuse("volumes", f"{volume.name} does not hold whole chunks")
    if volumes[-1].size > volumes[0].size:
        raise fields.refuse("volumes", "the last volume is larger than the first")
    if parity and len(volumes) + len(parity) > MAX_VOLUMES_WITH_PARITY:
        raise fields.refuse("parity", f"over {MAX_VOLUMES_WITH_PARITY} volumes of both kinds")
    stripes = stripe_count(payload, volumes)
    for sums in parity:
        if len(sums.chunks) != stripes or sums.size != stripes * payload.chunk_size:
            raise fields.refuse("parity", f"{sums.name} does not hold one chunk for each stripe")
