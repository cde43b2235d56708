"""The small files of a bundle: which are good on which medium, and where the others can be had.

No small file is precious. Each lies on every medium, and its bytes lie there a second time: under
the name of its spare copy, or in the payload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.errors import IntegrityError
from packager.format.bundle import Bundle, PayloadFile
from packager.format.digest import Digest
from packager.format.envelope import MAX_ENVELOPE_SIZE, envelope_name
from packager.format.model_signature import MAX_MODEL_SIGNATURE_SIZE, model_signature_name
from packager.format.sums import (
    SPARE_PREFIX,
    SUMS_NAME,
    carries_key_id,
    keyed_variant,
    signature_key_id,
    signature_name,
    spare_name,
)
from packager.isolated.media import Media, regular_size
from packager.isolated.model_signing import model_signature_digests, model_signature_names
from packager.isolated.provenance import envelope_digests, envelope_names
from packager.store.digests import file_digest
from packager.trust.keys import MAX_SIGNATURE_SIZE
from packager.trust.verify import VerifiedBundle

MAX_SMALL_FILE_SIZE = 1 << 32  # bytes; FAT32 takes no larger file, and wheels are far below it

Source = Path | PayloadFile


@dataclass(frozen=True)
class SmallFileState:
    """A small file that belongs on ``medium``, and what is there under its name.

    ``digest`` is ``None`` where nobody here can tell it: for a signature by an unknown key whose
    copies differ. ``size`` are the bytes that are there, ``None`` if nothing is. ``source`` is
    where the right bytes are: a path, or a file of the payload, whose chunks may be lost.
    """

    name: str
    medium: Path
    digest: Digest | None
    size: int | None
    is_good: bool
    source: Source | None

    @property
    def path(self) -> Path:
        """Where it lies, or should."""
        return self.medium / self.name


def read_small_files(verified: VerifiedBundle, media: Media) -> tuple[SmallFileState, ...]:
    """Read every small file on every medium; those that are not there come too."""
    listed = _listed_digests(verified)
    signed = model_signature_names(verified) | envelope_names(verified)
    seen = {
        directory / name: _digest_if_readable(directory / name, _max_size(name))
        for directory, name in media.names()
        if name in listed or _key_id(name) or name in signed
    }
    digests = {
        **_signature_digests(verified, seen),
        **model_signature_digests(verified, seen),
        **envelope_digests(verified, seen),
        **listed,
    }
    sources = _Sources(verified.bundle, digests, seen)
    return tuple(
        _state(directory / name, digest, seen, sources)
        for directory in media.directories
        for name, digest in sorted(digests.items())
    )


def may_be_absent(name: str) -> bool:
    """Whether a bundle is whole without the file ``name``: a signature may have no spare copy.

    One that was made elsewhere is dropped in as a single file.
    """
    return name.startswith(SPARE_PREFIX) and carries_key_id(name)


def has_digest(path: Path, digest: Digest) -> bool:
    """Whether the small file at ``path`` is a file, can be read, and is as signed."""
    return _digest_if_readable(path, MAX_SMALL_FILE_SIZE) == digest


def names_of_signer(key_id: str, bundle: Bundle) -> frozenset[str]:
    """What the files are called that the key ``key_id`` may have added, and their spares."""
    models = (model_signature_name(variant.name, key_id) for variant in bundle.variants)
    names = (signature_name(key_id), envelope_name(key_id), *models)
    return frozenset((*names, *map(spare_name, names)))


def can_be_anybodys(path: Path, bundle: Bundle) -> bool:
    """Whether ``path``, which no sums list, can be what a signer added: nobody here can check it.

    By its name, and as a regular file no larger than such a one can be.
    """
    if not carries_key_id(path.name):
        return False
    of = keyed_variant(path.name)
    named = {variant.name for variant in bundle.variants}
    if of is not None and named.isdisjoint({of, spare_name(of)}):
        return False
    size = regular_size(path)
    return size is not None and size <= _max_size(path.name)


def _max_size(name: str) -> int:
    if _key_id(name):
        return MAX_SIGNATURE_SIZE
    if carries_key_id(name):
        return max(MAX_MODEL_SIGNATURE_SIZE, MAX_ENVELOPE_SIZE)
    return MAX_SMALL_FILE_SIZE


def _digest_if_readable(path: Path, max_size: int) -> Digest | None:
    size = regular_size(path)
    if size is None or size > max_size:
        return None
    try:
        return file_digest(path)
    except IntegrityError:  # a sector that the device does not give
        return None


def _listed_digests(verified: VerifiedBundle) -> dict[str, Digest]:
    """What the signed sums say, and what they are themselves."""
    volumes = {volume.name for volume in verified.bundle.volume_files}
    listed = {name: digest for name, digest in verified.sums.items() if name not in volumes}
    return {**listed, SUMS_NAME: verified.digest, spare_name(SUMS_NAME): verified.digest}


def _signature_digests(
    verified: VerifiedBundle, seen: Mapping[Path, Digest | None]
) -> dict[str, Digest | None]:
    """Those of the signatures, by their names, of which there is a copy anywhere."""
    signers = {signer.key_id for signer in verified.signers}
    found: dict[str, Digest | None] = {}
    for key_id in {_key_id(path.name) for path in seen} - {None}:
        name = signature_name(str(key_id))
        if key_id in signers:
            digest: Digest | None = Digest.of(verified.evidence.signatures[str(key_id)])
        else:
            digest = _commonest(d for path, d in seen.items() if _key_id(path.name) == key_id)
        found |= {name: digest, spare_name(name): digest}
    return found


def _commonest(digests: Iterable[Digest | None]) -> Digest | None:
    """The digest that most copies have: which is right, nobody here can check."""
    ranked = Counter(digest for digest in digests if digest is not None).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _key_id(name: str) -> str | None:
    """The key id in the name of a signature, or of its spare copy."""
    return signature_key_id(name.removeprefix(SPARE_PREFIX))


class _Sources:
    """Where bytes can be had, by their digest."""

    def __init__(
        self,
        bundle: Bundle,
        digests: Mapping[str, Digest | None],
        seen: Mapping[Path, Digest | None],
    ) -> None:
        self._digests = digests
        self._paths: dict[Digest, list[Path]] = {}
        for path, digest in seen.items():
            if digest is not None:
                self._paths.setdefault(digest, []).append(path)
        self._payload = {file.digest: file for file in bundle.files}

    def find(self, digest: Digest, medium: Path) -> Source | None:
        """A file with that content, best one that should have it, and of ``medium``.

        Where there is none, the payload's.
        """
        paths = self._paths.get(digest, ())
        ranks = {
            path: (self._digests[path.name] != digest, path.parent != medium) for path in paths
        }
        return min(paths, key=ranks.__getitem__) if paths else self._payload.get(digest)


def _state(
    path: Path, digest: Digest | None, seen: Mapping[Path, Digest | None], sources: _Sources
) -> SmallFileState:
    return SmallFileState(
        name=path.name,
        medium=path.parent,
        digest=digest,
        size=(regular_size(path) or 0) if path in seen else None,
        is_good=digest is not None and seen.get(path) == digest,
        source=sources.find(digest, path.parent) if digest else None,
    )
