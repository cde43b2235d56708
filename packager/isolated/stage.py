"""From media to store: each chunk is read once, checked, and only then written.

The digests of whole files grow as it is written, so that they need no reading at the end. What an
interrupted install left is read first: from the media comes only what is not good there.
"""

from __future__ import annotations

import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from packager.errors import (
    AirpackError,
    DigestMismatchError,
    IntegrityError,
    MissingVolumeError,
    NoSpaceError,
)
from packager.format.bundle import Bundle, PayloadFile
from packager.format.digest import Digest
from packager.format.sizes import format_size
from packager.format.volumes import Volume
from packager.isolated.chunks import read_chunks
from packager.isolated.media import Media, regular_size
from packager.isolated.patch import OpenPatch
from packager.isolated.preflight import space_for
from packager.isolated.recover import can_be_rebuilt, recover_chunks
from packager.isolated.resume import chunks_here
from packager.progress import Progress
from packager.store.atomic import make_directory, naming_refusals, open_regular
from packager.store.blob_stream import BlobStream
from packager.store.blobs import has_blob
from packager.store.digests import GrowingDigest, file_digests
from packager.store.home import Home
from packager.store.open_files import allow_open_files
from packager.store.partials import IncomingBlob, incoming_blob
from packager.trust.verify import VerifiedBundle


def stage_files(
    verified: VerifiedBundle,
    files: Iterable[PayloadFile],
    media: Media,
    home: Home,
    progress: Progress,
    patches: Sequence[OpenPatch] = (),
) -> None:
    """Bring the content of ``files`` into the store, unless it is there.

    What is bad or missing on ``media`` may come from ``patches``, which are for this bundle.
    Raises ``MissingVolumeError``, ``IntegrityError`` or ``NoSpaceError``; then no blob of these
    files was published, and what was good of them waits for the next install.
    """
    missing = _not_stored(_distinct(files), home, progress)
    if not missing:
        return
    bundle = verified.bundle
    chunks = _chunks_of(bundle, missing)
    here = chunks_here(verified, missing, home, progress)
    if here:
        sizes = format_size(_total(bundle, here)), format_size(_total(bundle, chunks))
        progress.note(f"continuing: {sizes[0]} of {sizes[1]} are here already")
    wanted = [chunk for chunk in chunks if chunk not in here]
    _check_volumes_there(bundle, media, wanted, progress, patches)
    _check_space(home, missing)
    with ExitStack() as stack:
        allow_open_files(len(missing) + len(bundle.volumes))
        blobs = {
            file.digest: stack.enter_context(
                incoming_blob(home, bundle.name, file.digest, file.size)
            )
            for file in missing
        }
        writer = _Writer(bundle, missing, blobs)
        _write_chunks(verified, media, wanted, writer, progress, patches, done=_total(bundle, here))
        _check_files(writer, blobs, progress)


def _not_stored(files: Sequence[PayloadFile], home: Home, progress: Progress) -> list[PayloadFile]:
    """Those of ``files`` that the store does not hold whole: disks forget, and say nothing."""
    held = [file for file in files if has_blob(home, file.digest, file.size)]
    if not held:
        return [*files]
    with progress.task("checking the store", sum(file.size for file in held)) as task:
        found = file_digests([home.blob(file.digest) for file in held], task)
    intact = {
        file.digest for file, digest in zip(held, found, strict=True) if digest == file.digest
    }
    return [file for file in files if file.digest not in intact]


def _write_chunks(
    verified: VerifiedBundle,
    media: Media,
    wanted: Sequence[int],
    writer: _Writer,
    progress: Progress,
    patches: Sequence[OpenPatch],
    *,
    done: int,
) -> None:
    """Give ``writer`` the chunks ``wanted``; ``done`` bytes of their files are there already."""
    bundle = verified.bundle
    places = _places(bundle, media)
    there = [c for c in wanted if media.remote or bundle.volume_of(c).name in places]
    for chunk in sorted({*wanted} - {*there}):
        writer.refuse(chunk)
    total = done + _total(bundle, there)
    with progress.task("installing", total, done=done) as task, BlobStream() as stream:
        read = (
            media.remote.read_chunks
            if media.remote
            else partial(read_chunks, places=places, in_order=True)
        )
        good = partial(writer.append, stream)
        read(verified, chunks=there, good=good, bad=writer.refuse, task=task)
    if writer.bad:
        _recover(verified, media, writer, progress, patches)


def _check_files(writer: _Writer, blobs: Mapping[Digest, IncomingBlob], progress: Progress) -> None:
    """Refuse a file that is not what the index says, though every chunk of it is.

    Only a signer can bring that about; but what one signer sends must never stand in the store
    under the name of what another one sends, nor wait to be gone on with.
    """
    for file, digest in _file_digests(writer, blobs, progress):
        if digest != file.digest:
            for blob in blobs.values():
                blob.discard()
            raise DigestMismatchError(f"{file.path}: the signed index gives another digest")


def _file_digests(
    writer: _Writer, blobs: Mapping[Digest, IncomingBlob], progress: Progress
) -> list[tuple[PayloadFile, Digest]]:
    """Each file and its digest; what came out of order, or was here already, is read for it."""
    known = [(file, digest.value) for file, digest in writer.digests.items()]
    found = [(file, digest) for file, digest in known if digest is not None]
    unread = [file for file, digest in known if digest is None]
    if unread:
        with progress.task("checking whole files", sum(file.size for file in unread)) as task:
            digests = file_digests([blobs[file.digest].path for file in unread], task)
        found += zip(unread, digests, strict=True)
    return found


def _recover(
    verified: VerifiedBundle,
    media: Media,
    writer: _Writer,
    progress: Progress,
    patches: Sequence[OpenPatch],
) -> None:
    """Have the chunks that were bad or not there; raises if some cannot be had."""
    bundle = verified.bundle
    if bundle.parity or patches or len(media.directories) > 1:
        progress.note(f"{len(writer.bad)} chunk(s) bad or missing; making them good")
    with progress.task("rebuilding", _total(bundle, writer.bad)) as task:
        lost = recover_chunks(
            verified, media, writer.bad, good=writer.write, task=task, patches=patches
        )
    if not lost:
        return
    volume = bundle.volume_of(lost[0])
    offset, size = volume.place(lost[0])
    begin, _ = bundle.payload.chunk_range(lost[0])
    files = ", ".join(file.path for file in bundle.files_touching(begin, begin + size))
    more = f", and {len(lost) - 1} more chunks" if len(lost) > 1 else ""
    if media.remote is not None:
        where = f"{media.remote.url}{volume.name}: chunk {lost[0]}"
        raise IntegrityError(
            f"{where} is damaged{more}; it touches {files}",
            hint="copy the bundle from there to a directory: with parity volumes, airpack install "
            "makes it good from those",
        )
    place = media.find(volume.name)
    if place is None:
        raise _missing(volume.name, media)
    where = f"{place}: chunk {lost[0]} (bytes {offset} to {offset + size})"
    if _is_refused(place, offset, size):
        raise IntegrityError(
            f"{where} cannot be read{more}; it touches {files}",
            hint="put the medium back, or take another copy of it, and run this again",
        )
    raise IntegrityError(
        f"{where} is damaged{more}; it touches {files}",
        hint="airpack verify BUNDLE --ticket FILE names all damage and asks the sender for it; "
        "install takes the patch that comes back",
    )


def _is_refused(path: Path, offset: int, size: int) -> bool:
    """Whether the device does not give those bytes: pulled out, or failing."""
    try:
        with open_regular(path) as descriptor:
            os.pread(descriptor, size, offset)
    except AirpackError:  # the system's refusal, named
        return True
    return False


def _total(bundle: Bundle, chunks: Iterable[int]) -> int:
    return sum(bundle.volume_of(chunk).place(chunk)[1] for chunk in chunks)


class _Writer:
    """Puts each good chunk where its bytes belong, and remembers the bad ones.

    ``digests`` has the digest of each file as it grows.
    """

    def __init__(
        self,
        bundle: Bundle,
        files: list[PayloadFile],
        blobs: Mapping[Digest, IncomingBlob],
    ) -> None:
        self._bundle = bundle
        self._files = files
        self._ends = [file.end for file in files]
        self._blobs = blobs
        self.digests = {file: GrowingDigest(file.size) for file in files}
        self.bad: list[int] = []
        self._lock = threading.Lock()

    def append(self, stream: BlobStream, chunk: int, data: memoryview) -> None:
        """Take the chunk that comes next in order, one at a time, and have ``stream`` write it."""
        for file, piece, offset in self._pieces(chunk, data):
            stream.write(self._blobs[file.digest], piece, offset)
            self.digests[file].take(piece, offset)

    def write(self, chunk: int, data: memoryview) -> None:
        """Take a chunk out of order, from any thread, while nothing is appended."""
        for file, piece, offset in self._pieces(chunk, data):
            self._blobs[file.digest].write(piece, offset)

    def _pieces(
        self, chunk: int, data: memoryview
    ) -> Iterator[tuple[PayloadFile, memoryview, int]]:
        """The files that have bytes of ``chunk``, with those, and their offset in the file."""
        begin, size = self._bundle.payload.chunk_range(chunk)
        first = bisect_right(self._ends, begin)
        for file in itertools.takewhile(lambda f: f.offset < begin + size, self._files[first:]):
            start, end = max(file.offset, begin), min(file.end, begin + size)
            yield file, data[start - begin : end - begin], start - file.offset

    def refuse(self, chunk: int) -> None:
        with self._lock:
            self.bad.append(chunk)


def _distinct(files: Iterable[PayloadFile]) -> list[PayloadFile]:
    """The first file of each content, in payload order."""
    ordered = sorted(files, key=lambda file: file.offset, reverse=True)
    by_digest = {file.digest: file for file in ordered}
    return sorted(by_digest.values(), key=lambda file: file.offset)


def _chunks_of(bundle: Bundle, files: list[PayloadFile]) -> list[int]:
    chunk_size = bundle.payload.chunk_size
    chunks: set[int] = set()
    for file in files:
        chunks.update(range(file.offset // chunk_size, -(-file.end // chunk_size)))
    return sorted(chunks)


def _places(bundle: Bundle, media: Media) -> dict[str, Path]:
    """Where the payload's volumes lie that can be read as such; the others are made good."""
    places = {v.name: path for v in bundle.volumes if (path := media.find(v.name)) is not None}
    return {name: path for name, path in places.items() if regular_size(path) is not None}


def _check_volumes_there(
    bundle: Bundle,
    media: Media,
    chunks: Sequence[int],
    progress: Progress,
    patches: Sequence[OpenPatch],
) -> None:
    """Raise where volumes that hold ``chunks`` are absent, and nothing here makes them good.

    So a forgotten medium is noticed at once, and not after an hour.
    """
    if media.remote is not None:
        return  # asked for when their turn comes
    absent = [volume for volume in bundle.volume_files if media.find(volume.name) is None]
    patched = {chunk.number for patch in patches for chunk in patch.chunks}
    lost = [chunk for volume in absent for chunk in volume.chunks if chunk not in patched]
    hopeless = {*lost}.intersection(chunks) - can_be_rebuilt(bundle, lost)
    if hopeless:
        names = dict.fromkeys(bundle.volume_of(chunk).name for chunk in sorted(hopeless))
        raise _missing(", ".join(names), media)
    if absent:
        names_absent = ", ".join(volume.name for volume in absent)
        progress.note(f"{names_absent}: missing; this install does without")
    for volume in bundle.volumes:
        _check_volume(volume, media.copies(volume.name), spared=bool(bundle.parity or patches))


def _missing(names: str, media: Media) -> MissingVolumeError:
    where = ", ".join(str(directory) for directory in media.directories)
    return MissingVolumeError(
        f"{names}: missing from {where}",
        hint="name every medium of this bundle, or copy the volume again",
    )


def _check_volume(volume: Volume, copies: Sequence[Path], *, spared: bool) -> None:
    """Refuse what is no volume, unless it can be ``spared``, and what has more bytes than one.

    Of several copies it takes one that is neither.
    """
    facts: list[str] = []
    for path in copies:
        size = regular_size(path)
        if size is None and not spared:
            facts.append(f"{path}: not a regular file")
        elif size is not None and size > volume.size:
            facts.append(f"{path}: {size} bytes, not {volume.size}")
    if facts and len(facts) == len(copies):
        raise IntegrityError(
            facts[0],
            hint="airpack verify BUNDLE says what mends it; or copy the bundle again from its "
            "source",
        )


def _check_space(home: Home, files: Sequence[PayloadFile]) -> None:
    """Raise ``NoSpaceError`` where ``files`` do not fit, less what is here of them already."""
    make_directory(home.blobs)
    with naming_refusals(home.blobs):
        status = os.statvfs(home.blobs)
    free = status.f_bavail * status.f_frsize
    needed = space_for(files, home)
    if free < needed:
        raise NoSpaceError(
            f"{home.root}: {format_size(needed)} needed, {format_size(free)} free",
            hint="airpack gc frees what no generation holds; or set AIRPACK_HOME to a larger disk",
        )
