"""Answer a repair ticket: a patch of just what it asks for, from the bundle as it was built.

    ticket -> bundle's directory -> chunks and small files, each checked -> patch -> sign -> medium

As with a bundle, nothing unfinished gets the patch's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.packing.spares import write_spares
from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle
from packager.errors import DigestMismatchError, MissingVolumeError, UsageError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.patch import (
    CHUNKS_NAME,
    PATCH_NAME,
    Patch,
    PatchChunk,
    PatchFile,
    encode_patch,
)
from packager.format.sizes import format_size
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, encode_sums, parse_sums
from packager.format.ticket import Ticket, digest_of_wanted, format_ranges
from packager.progress import Progress
from packager.store.atomic import (
    appearing_whole,
    naming_refusals,
    open_regular,
    read_capped,
    write_file,
)
from packager.store.digests import file_digest
from packager.store.filesystem import FAT32_MAX_FILE_SIZE

README_NAME = "READ-ME-FIRST.txt"


def build_patch(
    ticket: Ticket, source: Path, output: Path, keys: Sequence[SigningKey], progress: Progress
) -> Path:
    """Write ``output``/<name>-<version>.patch-<check>/, signed by ``keys``; returns it.

    ``source`` is the directory of the bundle. Raises ``UsageError`` where that is another bundle
    than the ticket's, ``IntegrityError`` or ``MissingVolumeError`` where something asked for is not
    good there either, and ``NoSpaceError`` or ``HostError``; then nothing is left in ``output``.
    """
    built = _read_bundle(source)
    _check_ticket(ticket, built)
    patch = _plan(ticket, built)
    directory = output / f"{built.index.title}.patch-{ticket.check}"
    if os.path.lexists(directory):
        raise UsageError(f"{directory}: exists already", hint="carry that one, or remove it")
    with appearing_whole(directory) as place:
        _write_content(place / CHUNKS_NAME, patch, built, progress)
        write_file(place / PATCH_NAME, encode_patch(patch))
        write_file(place / README_NAME, _readme(patch, directory.name, keys))
        write_spares(place, (PATCH_NAME, README_NAME))
        sums = {path.name: file_digest(path) for path in place.iterdir()}
        write_file(place / SUMS_NAME, encode_sums(sums))
        write_spares(place, (SUMS_NAME,))
        for key in keys:
            sign_bundle(place, key)
    return directory


@dataclass(frozen=True)
class _Built:
    """The bundle in ``directory``: its index, what its sums say, and the digest of these."""

    directory: Path
    index: Bundle
    sums: Mapping[str, Digest]
    digest: Digest


def _read_bundle(source: Path) -> _Built:
    if not (source / SUMS_NAME).is_file():
        raise UsageError(
            f"{source}: not a bundle's directory; there is no {SUMS_NAME} in it",
            hint="name the directory of the bundle, as it was built",
        )
    data = read_capped(source / SUMS_NAME, MAX_SUMS_SIZE)
    index = read_capped(source / INDEX_NAME, MAX_INDEX_SIZE)
    sums = parse_sums(data)
    if Digest.of(index) != sums.get(INDEX_NAME):
        raise DigestMismatchError(f"{source / INDEX_NAME}: not the file that {SUMS_NAME} lists")
    return _Built(source, parse_bundle(index), sums, Digest.of(data))


def _check_ticket(ticket: Ticket, built: _Built) -> None:
    bundle, source = built.index, built.directory
    if ticket.title != bundle.title or not built.digest.hex.startswith(ticket.bundle):
        raise UsageError(
            f"{source}: is {bundle.title} with the sums {built.digest.hex[:16]}; the ticket is for "
            f"{ticket.title} with {ticket.bundle[:16]}",
            hint="name the directory of that very bundle, as it was built",
        )
    count = len(bundle.chunk_digests)
    if ticket.chunks and ticket.chunks[-1] >= count:
        raise UsageError(
            f"{source}: has {count} chunks; the ticket asks for chunk {ticket.chunks[-1]}"
        )
    files = _asked_files(ticket, built)
    if digest_of_wanted(bundle, ticket.chunks, files.values()) != ticket.digests:
        chunks = f"chunks {format_ranges(ticket.chunks)[:200]}" if ticket.chunks else ""
        lines = f"lines {format_ranges(ticket.files)[:200]} of the sums" if ticket.files else ""
        raise UsageError(
            f"{source}: the ticket's digests are not those of "
            f"{' and '.join(filter(None, (chunks, lines)))} of this bundle",
            hint="read the ticket out again, line by line",
        )


def _asked_files(ticket: Ticket, built: _Built) -> Mapping[str, Digest]:
    """The small files that the ticket asks for, by name: it has their lines in the sums, from 1."""
    lines = dict(enumerate(built.sums.items(), start=1))
    volumes = {volume.name for volume in built.index.volume_files}
    files: dict[str, Digest] = {}
    for number in ticket.files:
        name, digest = lines.get(number, (None, None))
        if name is None or digest is None or name in volumes:
            raise UsageError(
                f"{built.directory}: line {number} of its {SUMS_NAME} is no small file",
                hint="read the ticket out again, line by line",
            )
        files[name] = digest
    return files


def _plan(ticket: Ticket, built: _Built) -> Patch:
    chunks: list[PatchChunk] = []
    files: list[PatchFile] = []
    offset = 0
    for number in ticket.chunks:
        size = built.index.volume_of(number).place(number)[1]
        chunks.append(PatchChunk(number, size, offset, built.index.chunk_digests[number]))
        offset += size
    for name, digest in _asked_files(ticket, built).items():
        size = _small_file(name, built).stat().st_size
        files.append(PatchFile(name, size, offset, digest))
        offset += size
    if offset > FAT32_MAX_FILE_SIZE:
        raise UsageError(
            f"the ticket asks for {format_size(offset)}; a patch holds up to "
            f"{format_size(FAT32_MAX_FILE_SIZE)}",
            hint="copy the damaged volumes again from the bundle itself",
        )
    return Patch(built.index.title, built.digest, tuple(chunks), tuple(files))


def _write_content(path: Path, patch: Patch, built: _Built, progress: Progress) -> None:
    """Write the chunks and files of ``patch`` one after the other, each once it has its digest."""
    with (
        progress.task("copying what is asked for", patch.size) as task,
        naming_refusals(path),
        open(path, "xb") as stream,
    ):
        for chunk in patch.chunks:
            stream.write(_read_chunk(chunk, built))
            task.advance(chunk.size)
        for file in patch.files:
            stream.write(_read_file(file, built))
            task.advance(file.size)
        stream.flush()
        os.fsync(stream.fileno())


def _read_chunk(chunk: PatchChunk, built: _Built) -> bytes:
    volume = built.index.volume_of(chunk.number)
    path = built.directory / volume.name
    if not os.path.lexists(path):
        raise MissingVolumeError(f"{path}: is not here, and the ticket asks for a chunk of it")
    offset, size = volume.place(chunk.number)
    with open_regular(path) as descriptor, naming_refusals(path):
        data = os.pread(descriptor, size, offset)
    if Digest.of(data) != chunk.digest:
        raise DigestMismatchError(
            f"{path}: chunk {chunk.number} (bytes {offset} to {offset + size}) is damaged here too",
            hint=f"airpack repair {built.directory} --in-place; or build the bundle again",
        )
    return data


def _small_file(name: str, built: _Built) -> Path:
    path = built.directory / name
    if not path.is_file():
        raise MissingVolumeError(f"{path}: is not here, and the ticket asks for it")
    return path


def _read_file(file: PatchFile, built: _Built) -> bytes:
    path = _small_file(file.name, built)
    data = read_capped(path, file.size)
    if Digest.of(data) != file.digest:
        raise DigestMismatchError(
            f"{path}: is damaged here too",
            hint=f"airpack repair {built.directory} --in-place; or build the bundle again",
        )
    return data


def _readme(patch: Patch, name: str, keys: Sequence[SigningKey]) -> bytes:
    signers = ", ".join(key.public.key_id for key in keys)
    text = _TEMPLATE.format(
        name=name,
        title=patch.title,
        count=len(patch.parts),
        size=format_size(patch.size),
        chunks=format_ranges(chunk.number for chunk in patch.chunks)[:1000] or "none",
        files=" ".join(file.name for file in patch.files)[:1000] or "none",
        signers=signers or "nobody yet; see the files SHA256SUMS.*.sig",
        sums=SUMS_NAME,
    )
    return text.encode("ascii")


_TEMPLATE = """\
{name}
a patch by airpack: what a repair ticket asked for, and nothing else

    for        {title}
    chunks     {chunks}
    files      {files}
    in all     {count}, {size}
    signed by  {signers}

It is no bundle, and nothing can be installed from it alone. BUNDLE is the directory of the
damaged bundle, PATCH this one:

    sha256sum -c {sums}
    airpack repair BUNDLE PATCH --in-place

Where the bundle cannot be written to, name a place for another medium instead, and then
install from both:

    airpack repair BUNDLE PATCH --to DIR
    airpack install BUNDLE DIR

Or install from both without mending anything: airpack install BUNDLE PATCH
"""
