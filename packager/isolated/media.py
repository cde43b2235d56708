"""The media a bundle came on: directories, in any order, that nobody vouches for yet.

Everything read here is bounded and comes from regular files only. What it says is believed
only behind :func:`packager.trust.verify.verify_bundle`.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packager.errors import (
    AirpackError,
    IntegrityError,
    MissingVolumeError,
    TrustError,
    UsageError,
)
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE
from packager.format.digest import Digest
from packager.format.patch import MAX_PATCH_SIZE, PATCH_NAME
from packager.format.sums import (
    MAX_SUMS_SIZE,
    SPARE_PREFIX,
    SUMS_NAME,
    signature_key_id,
    signature_name,
    spare_name,
)
from packager.progress import Task
from packager.store.atomic import naming_refusals, read_capped
from packager.trust.keyring import Keyring
from packager.trust.keys import MAX_KEY_FILE_SIZE, MAX_SIGNATURE_SIZE, PublicKey, parse_public_key
from packager.trust.verify import Evidence, VerifiedBundle, choose_signatures

MAX_NAMES = 4096  # on one medium: volumes, wheels, signatures and the rest
MAX_SIGNATURES = 64
_KNOWS_NOBODY = Keyring()
_WHERE = "name the directory that holds READ-ME-FIRST.txt"

# What systems leave on any stick, in lower case; never part of a bundle, never read. Not
# autorun.inf: that one comes from a person or from malware, and is worth a question.
_DROPPINGS = frozenset(
    {
        "system volume information", "$recycle.bin", "recycler", "found.000", "lost+found",
        "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip


@dataclass(frozen=True)
class DocumentKind:
    """The document that sums lead to: an index, or that of a patch. ``max_size`` in bytes."""

    name: str
    max_size: int


INDEX = DocumentKind(INDEX_NAME, MAX_INDEX_SIZE)
PATCH = DocumentKind(PATCH_NAME, MAX_PATCH_SIZE)


class RemoteVolumes(Protocol):
    """Volumes that no directory holds: who gives their chunks, and from where."""

    @property
    def url(self) -> str:
        """Where they are."""

    def read_chunks(
        self,
        verified: VerifiedBundle,
        chunks: Sequence[int],
        *,
        good: Callable[[int, memoryview], None],
        bad: Callable[[int], None],
        task: Task,
    ) -> None:
        """As :func:`packager.isolated.chunks.read_chunks` does, in order, one at a time."""


@dataclass(frozen=True)
class Media:
    """The directories that together hold one bundle; or its small files, the rest ``remote``."""

    directories: tuple[Path, ...]
    remote: RemoteVolumes | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The directories, as :func:`label_of` has them, or the address."""
        if self.remote is not None:
            return (self.remote.url,)
        return tuple(map(label_of, self.directories))

    def __str__(self) -> str:
        return ", ".join(str(directory) for directory in self.directories)

    def find(self, name: str) -> Path | None:
        """Where the file ``name`` lies, on the first medium that has it."""
        return next(iter(self.copies(name)), None)

    def copies(self, name: str) -> tuple[Path, ...]:
        """Where the file ``name`` lies, on every medium that has it."""
        paths = (directory / name for directory in self.directories)
        return tuple(path for path in paths if os.path.lexists(path))

    def require(self, name: str) -> Path:
        """Where the file ``name`` lies; raises ``MissingVolumeError`` if on no medium."""
        path = self.find(name)
        if path is None:
            raise MissingVolumeError(f"{name} is on none of the media: {self}")
        return path

    def names(self) -> Iterator[tuple[Path, str]]:
        """Every directory and name on the media, but hidden files and systems' droppings."""
        for directory in self.directories:
            for name in _list_names(directory):
                yield directory, name


def label_of(directory: Path) -> str:
    """An absolute path, fit for a document whatever bytes it holds."""
    return str(directory.absolute()).encode("utf-8", "backslashreplace").decode("utf-8")


def open_media(paths: Iterable[Path]) -> Media:
    """The media at ``paths``: bundle directories, or directories holding just one.

    A directory named twice counts once. Raises ``UsageError`` where there is no bundle.
    """
    found = {directory.resolve(): directory for directory in map(_bundle_directory, paths)}
    return Media(tuple(found.values()))


def _bundle_directory(path: Path) -> Path:
    with naming_refusals(path):
        if not path.is_dir():
            fact = "not a directory" if path.exists() else "no such directory"
            raise UsageError(f"{path}: {fact}", hint=_WHERE)
        below = evidence_below(path)
    inside = [directory for directory in below if not is_patch(directory)]
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(child.name for child in inside)
        raise UsageError(f"{path}: holds several bundles ({names}); name one of them")
    if below:
        raise UsageError(
            f"{below[0]}: a patch, not a bundle",
            hint=f"airpack repair BUNDLE {shlex.quote(str(below[0]))} --in-place",
        )
    raise UsageError(f"{path}: not a bundle; there is no {SUMS_NAME} in it", hint=_lacking(path))


def _lacking(path: Path) -> str:
    """What to do where no bundle is: where volumes lie alone, it is known what they lack."""
    patterns = ("payload.*", "parity.*", "*/payload.*", "*/parity.*")
    with naming_refusals(path):
        volume = next((found for pattern in patterns for found in path.glob(pattern)), None)
    if volume is None:
        return _WHERE
    return f"copy {SUMS_NAME} and {INDEX_NAME} beside {volume}, from another medium of the bundle"


def evidence_below(path: Path) -> list[Path]:
    """The directory ``path`` itself, if it looks like a bundle or a patch; else those in it.

    One that has lost its sums, both copies, is known by its index.
    """
    if _holds_evidence(path):
        return [path]
    children = (child for child in sorted(path.iterdir()) if not child.name.startswith("."))
    return [child for child in children if _holds_evidence(child)]


def is_patch(directory: Path) -> bool:
    """Whether ``directory`` is a patch, and no bundle."""
    return any((directory / name).is_file() for name in (PATCH_NAME, spare_name(PATCH_NAME)))


def _holds_evidence(directory: Path) -> bool:
    names = (SUMS_NAME, INDEX_NAME, PATCH_NAME)
    return any((directory / copy).exists() for name in names for copy in (name, spare_name(name)))


def _holds_sums(directory: Path) -> bool:
    return any((directory / name).exists() for name in (SUMS_NAME, spare_name(SUMS_NAME)))


def _list_names(directory: Path) -> list[str]:
    with naming_refusals(directory), os.scandir(directory) as entries:
        names = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _DROPPINGS:
                continue
            names.append(entry.name)
            if len(names) > MAX_NAMES:
                raise IntegrityError(f"{directory}: holds more than {MAX_NAMES} files")
    return sorted(names)


def read_evidence(
    media: Media, keyring: Keyring = _KNOWS_NOBODY, document: DocumentKind = INDEX
) -> tuple[Evidence, ...]:
    """What the decision to trust is made from, as read from the media: at least one reading.

    The sums, their signatures and the index each have a spare copy, on every medium, and any of
    them may be bad. There is a reading for each content of the sums, those under their own name
    first: with the index that they list, and of each signature the copy that holds, as far as
    ``keyring`` can tell. Raises ``MissingVolumeError``, ``IntegrityError`` or ``HostError`` where
    there is none.
    """
    all_sums = _readings(media, SUMS_NAME, MAX_SUMS_SIZE)

    def lists(sums: bytes, index: bytes) -> bool:
        return f"{Digest.of(index)}  {document.name}\n".encode() in sums

    # No sums list the others, which are large, and could be as many as there are copies.
    indices = _readings(
        media,
        document.name,
        document.max_size,
        lambda index: any(lists(sums, index) for sums in all_sums),
    )
    signatures = _read_signatures(media)
    readings: list[Evidence] = []
    for sums in all_sums:
        listed = [index for index in indices if lists(sums, index)]
        chosen = choose_signatures(signatures, sums, keyring)
        readings.append(Evidence(sums, chosen, (listed or indices)[0]))
    return tuple(readings)


def _anything(_data: bytes) -> bool:
    return True


def _readings(
    media: Media, name: str, max_size: int, wanted: Callable[[bytes], bool] = _anything
) -> tuple[bytes, ...]:
    """The contents, each once, of all copies and spare copies of ``name`` that can be read.

    Of those that are not ``wanted`` there is one at most, the first of all.
    """
    found, errors = _read_copies(media, name, max_size, wanted)
    if found:
        return found
    if errors:
        raise errors[0]
    raise MissingVolumeError(f"{name} is on none of the media: {media}")


def _read_signatures(media: Media) -> dict[str, tuple[bytes, ...]]:
    """The contents, each once, of the copies of each signature that can be read, by key id."""
    ids = {signature_key_id(name.removeprefix(SPARE_PREFIX)) for _, name in media.names()}
    key_ids = sorted(key_id for key_id in ids if key_id is not None)
    if len(key_ids) > MAX_SIGNATURES:
        raise IntegrityError(f"{media}: more than {MAX_SIGNATURES} signatures")
    copies = {
        key_id: _read_copies(media, signature_name(key_id), MAX_SIGNATURE_SIZE + 1)[0]
        for key_id in key_ids
    }
    return {key_id: found for key_id, found in copies.items() if found}


def _read_copies(
    media: Media, name: str, max_size: int, wanted: Callable[[bytes], bool] = _anything
) -> tuple[tuple[bytes, ...], list[AirpackError]]:
    """The contents, each once, of ``name`` and its spare copy on every medium, and what failed."""
    found: list[bytes] = []
    errors: list[AirpackError] = []
    for path in (*media.copies(name), *media.copies(spare_name(name))):
        try:
            data = read_capped(path, max_size)
        except AirpackError as error:
            errors.append(error)
            continue
        if data not in found and (not found or wanted(data)):
            found.append(data)
    return tuple(found), errors


def read_run_key(path: Path, media: Media) -> PublicKey:
    """Read the public key a person named for this run.

    Raises ``TrustError`` for one that came on the medium itself: it would vouch for itself.
    """
    with naming_refusals(path):
        real = path.resolve()
        inside = [d for d in media.directories if real.is_relative_to(d.resolve())]
    if inside:
        raise TrustError(
            f"{path}: this key came on the medium that it should vouch for",
            hint="get the key another way, or compare its fingerprint with the sender by voice",
        )
    return parse_public_key(read_capped(real, MAX_KEY_FILE_SIZE), str(path))


def check_not_beside_sums(path: Path) -> None:
    """Raise ``TrustError`` for a key file that lies in a bundle's directory, or below one."""
    with naming_refusals(path):
        for directory in path.resolve().parents:
            if _holds_sums(directory):
                raise TrustError(
                    f"{path}: this key came with the bundle that it should vouch for",
                    hint="get the key another way than on the medium",
                )


def regular_size(path: Path) -> int | None:
    """The size in bytes of a regular file, or ``None`` for any other kind of thing."""
    with naming_refusals(path):
        status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None
