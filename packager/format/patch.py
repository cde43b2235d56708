"""``patch.json``: what a patch holds, the small bundle that answers a repair ticket.

A patch is a directory of its own: this document (canonical JSON), ``chunks.00001`` with the
chunks and then the small files one after the other in the order they stand here,
``READ-ME-FIRST.txt``, and the sums of them all with their signatures, as a bundle has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.ticket import MAX_TICKET_CHUNKS
from packager.format.volumes import MAX_CHUNK_SIZE

PATCH_NAME = "patch.json"
CHUNKS_NAME = "chunks.00001"
FORMAT = "airpack-patch"
FORMAT_VERSION = 1
MAX_PATCH_SIZE = 16 << 20  # 65,536 chunks of 150 bytes, and room
MAX_PATCH_FILES = 4096  # as many as one medium holds
MAX_PATCH_FILE_SIZE = (1 << 32) - 1  # bytes; FAT32 takes no larger file


@dataclass(frozen=True)
class PatchChunk:
    """A chunk of the bundle; ``size`` and ``offset``, its place in the file of chunks, in bytes."""

    number: int
    size: int
    offset: int
    digest: Digest

    def __str__(self) -> str:
        return f"chunk {self.number}"


@dataclass(frozen=True)
class PatchFile:
    """A small file of the bundle; ``size`` and ``offset`` in the file of chunks, in bytes."""

    name: str
    size: int
    offset: int
    digest: Digest

    def __str__(self) -> str:
        return self.name


PatchPart = PatchChunk | PatchFile


@dataclass(frozen=True)
class Patch:
    """Chunks of the bundle called ``title`` whose sums have the digest ``bundle``, ascending.

    ``files`` are small files of it, by their names.
    """

    title: str
    bundle: Digest
    chunks: tuple[PatchChunk, ...]
    files: tuple[PatchFile, ...] = ()

    @property
    def parts(self) -> tuple[PatchPart, ...]:
        """What the file of chunks holds, in its order."""
        parts: tuple[PatchPart, ...] = self.chunks
        return parts + self.files

    @property
    def size(self) -> int:
        """The size in bytes of the file of chunks."""
        return self.parts[-1].offset + self.parts[-1].size


def encode_patch(patch: Patch) -> bytes:
    """Write ``patch`` as canonical JSON, having read it back as any host will."""
    data = canonical.encode(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "title": patch.title,
            "bundle": patch.bundle.hex,
            "chunks": [
                {"number": c.number, "size": c.size, "digest": c.digest.hex} for c in patch.chunks
            ],
            "files": [
                {"name": f.name, "size": f.size, "digest": f.digest.hex} for f in patch.files
            ],
        }
    )
    parse_patch(data)
    return data


def parse_patch(data: bytes) -> Patch:
    """Read a patch's document; raises ``MalformedError`` for anything that does not fit."""
    document = canonical.decode(data, what=PATCH_NAME, max_size=MAX_PATCH_SIZE)
    fields = Fields.of(document, PATCH_NAME)
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    version = fields.integer("format_version", least=1)
    if version != FORMAT_VERSION:
        raise MalformedError(
            f"{PATCH_NAME}: format version {version}; this airpack reads {FORMAT_VERSION}",
            hint="have the patch made by the airpack that built the bundle",
        )
    fields.only("format", "format_version", "title", "bundle", "chunks", "files")
    _check_count(fields, "chunks", MAX_TICKET_CHUNKS)
    _check_count(fields, "files", MAX_PATCH_FILES)
    chunks = _parse_chunks(fields)
    end = sum(chunk.size for chunk in chunks)
    patch = Patch(
        fields.line("title"), fields.digest("bundle"), chunks, _parse_files(fields, offset=end)
    )
    if not patch.parts:
        raise fields.refuse("chunks", "are none, and no files either")
    return patch


def _check_count(fields: Fields, key: str, most: int) -> None:
    if len(fields.items(key)) > most:
        raise fields.refuse(key, f"more than {most} entries")


def _parse_chunks(fields: Fields) -> tuple[PatchChunk, ...]:
    chunks: list[PatchChunk] = []
    offset = 0
    for entry in fields.mappings("chunks"):
        entry.only("number", "size", "digest")
        number = entry.integer("number", least=chunks[-1].number + 1 if chunks else 0)
        size = entry.integer("size", least=1, most=MAX_CHUNK_SIZE)
        chunks.append(PatchChunk(number, size, offset, entry.digest("digest")))
        offset += size
    return tuple(chunks)


def _parse_files(fields: Fields, offset: int) -> tuple[PatchFile, ...]:
    files: list[PatchFile] = []
    for entry in fields.mappings("files"):
        entry.only("name", "size", "digest")
        name = entry.line("name")
        if files and name <= files[-1].name:
            raise entry.refuse("name", f"{name} stands twice, or out of order")
        size = entry.integer("size", most=MAX_PATCH_FILE_SIZE)
        files.append(PatchFile(name, size, offset, entry.digest("digest")))
        offset += size
    return tuple(files)
