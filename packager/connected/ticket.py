"""Answer a repair ticket: a patch of just the chunks it asks for, from the bundle as it was built.

    ticket -> bundle's directory -> chunks, each checked -> patch -> sign -> medium

As with a bundle, nothing unfinished gets the patch's name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from packager.connected.keys import SigningKey
from packager.connected.layout import FAT32_MAX_FILE_SIZE
from packager.connected.sign import sign_bundle
from packager.errors import DigestMismatchError, MissingVolumeError, UsageError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.patch import CHUNKS_NAME, PATCH_NAME, Patch, PatchChunk, encode_patch
from packager.format.sizes import format_size
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, encode_sums, parse_sums
from packager.format.ticket import Ticket, digest_of_chunks, format_ranges
from packager.progress import Progress
from packager.store.atomic import (
    appearing_whole,
    naming_refusals,
    open_regular,
    read_capped,
    write_file,
)
from packager.store.digests import file_digest

README_NAME = "READ-ME-FIRST.txt"


def build_patch(
    ticket: Ticket, source: Path, output: Path, keys: Sequence[SigningKey], progress: Progress
) -> Path:
    """Write ``output``/<name>-<version>.patch-<check>/, signed by ``keys``; returns it.

    ``source`` is the directory of the bundle. Raises ``UsageError`` where that is another bundle
    than the ticket's, ``IntegrityError`` or ``MissingVolumeError`` where a chunk asked for is not
    good there either, and ``NoSpaceError`` or ``HostError``; then nothing is left in ``output``.
    """
    bundle, digest = _read_bundle(source)
    _check_ticket(ticket, bundle, digest, source)
    patch = _plan(ticket, bundle, digest)
    directory = output / f"{bundle.title}.patch-{ticket.check}"
    if os.path.lexists(directory):
        raise UsageError(f"{directory}: exists already", hint="carry that one, or remove it")
    with appearing_whole(directory) as place:
        _write_chunks(place / CHUNKS_NAME, patch, bundle, source, progress)
        write_file(place / PATCH_NAME, encode_patch(patch))
        write_file(place / README_NAME, _readme(patch, directory.name, keys))
        names = (CHUNKS_NAME, PATCH_NAME, README_NAME)
        write_file(place / SUMS_NAME, encode_sums({n: file_digest(place / n) for n in names}))
        for key in keys:
            sign_bundle(place, key)
    return directory


def _read_bundle(source: Path) -> tuple[Bundle, Digest]:
    """The index of the bundle in ``source``, and the digest of its sums."""
    if not (source / SUMS_NAME).is_file():
        raise UsageError(
            f"{source}: not a bundle's directory; there is no {SUMS_NAME} in it",
            hint="name the directory of the bundle, as it was built",
        )
    sums = read_capped(source / SUMS_NAME, MAX_SUMS_SIZE)
    index = read_capped(source / INDEX_NAME, MAX_INDEX_SIZE)
    if Digest.of(index) != parse_sums(sums).get(INDEX_NAME):
        raise DigestMismatchError(f"{source / INDEX_NAME}: not the file that {SUMS_NAME} lists")
    return parse_bundle(index), Digest.of(sums)


def _check_ticket(ticket: Ticket, bundle: Bundle, digest: Digest, source: Path) -> None:
    if ticket.title != bundle.title or not digest.hex.startswith(ticket.bundle):
        raise UsageError(
            f"{source}: is {bundle.title} with the sums {digest.hex[:16]}; the ticket is for "
            f"{ticket.title} with {ticket.bundle[:16]}",
            hint="name the directory of that very bundle, as it was built",
        )
    count = len(bundle.chunk_digests)
    if ticket.chunks[-1] >= count:
        raise UsageError(
            f"{source}: has {count} chunks; the ticket asks for chunk {ticket.chunks[-1]}"
        )
    if digest_of_chunks(bundle, ticket.chunks) != ticket.digests:
        raise UsageError(
            f"{source}: the ticket's digests are not those of chunks "
            f"{format_ranges(ticket.chunks)[:200]} of this bundle",
            hint="read the ticket out again, line by line",
        )


def _plan(ticket: Ticket, bundle: Bundle, digest: Digest) -> Patch:
    chunks: list[PatchChunk] = []
    offset = 0
    for number in ticket.chunks:
        size = bundle.volume_of(number).place(number)[1]
        chunks.append(PatchChunk(number, size, offset, bundle.chunk_digests[number]))
        offset += size
    if offset > FAT32_MAX_FILE_SIZE:
        raise UsageError(
            f"the ticket asks for {format_size(offset)}; a patch holds up to "
            f"{format_size(FAT32_MAX_FILE_SIZE)}",
            hint="copy the damaged volumes again from the bundle itself",
        )
    return Patch(bundle.title, digest, tuple(chunks))


def _write_chunks(
    path: Path, patch: Patch, bundle: Bundle, source: Path, progress: Progress
) -> None:
    """Write the chunks of ``patch`` one after the other, each once it has its digest."""
    with (
        progress.task("copying chunks", patch.size) as task,
        naming_refusals(path),
        open(path, "xb") as stream,
    ):
        for chunk in patch.chunks:
            stream.write(_read_chunk(chunk, bundle, source))
            task.advance(chunk.size)
        stream.flush()
        os.fsync(stream.fileno())


def _read_chunk(chunk: PatchChunk, bundle: Bundle, source: Path) -> bytes:
    volume = bundle.volume_of(chunk.number)
    path = source / volume.name
    if not os.path.lexists(path):
        raise MissingVolumeError(f"{path}: is not here, and the ticket asks for a chunk of it")
    offset, size = volume.place(chunk.number)
    with open_regular(path) as descriptor, naming_refusals(path):
        data = os.pread(descriptor, size, offset)
    if Digest.of(data) != chunk.digest:
        raise DigestMismatchError(
            f"{path}: chunk {chunk.number} (bytes {offset} to {offset + size}) is damaged here too",
            hint=f"airpack repair {source} --in-place; or build the bundle again",
        )
    return data


def _readme(patch: Patch, name: str, keys: Sequence[SigningKey]) -> bytes:
    signers = ", ".join(key.public.key_id for key in keys)
    text = _TEMPLATE.format(
        name=name,
        title=patch.title,
        count=len(patch.chunks),
        size=format_size(patch.size),
        chunks=format_ranges(chunk.number for chunk in patch.chunks)[:1000],
        signers=signers or "nobody yet; see the files SHA256SUMS.*.sig",
        sums=SUMS_NAME,
    )
    return text.encode("ascii")


_TEMPLATE = """\
{name}
a patch by airpack: the chunks that a repair ticket asked for, and nothing else

    for        {title}
    chunks     {chunks}
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
"""
