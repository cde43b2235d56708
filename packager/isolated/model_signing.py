"""OpenSSF model signatures on the media: which of them hold, and into which folder they go.

They are for others to check, with ``model_signing verify key``; what this host believes rests on
the sums, and no model signature is listed in them. So one that is bad is a fault of the medium,
like any small file that is bad, and no reason not to install: one that is gone leaves no trace.
Only the keys that were found to have signed the sums are asked here.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from packager.errors import AirpackError
from packager.format.digest import Digest
from packager.format.model_signature import (
    MAX_MODEL_SIGNATURE_SIZE,
    MODEL_SIGNATURE,
    encode_model_signature,
    folder_digests,
    model_signature_name,
    parse_model_signature,
)
from packager.format.sums import spare_name
from packager.format.variant import Variant
from packager.isolated.media import Media
from packager.progress import Progress
from packager.store.atomic import read_capped, write_file
from packager.trust.keys import P256
from packager.trust.model_signature import check_model_signature
from packager.trust.verify import Signer, VerifiedBundle


def model_signature_names(verified: VerifiedBundle) -> frozenset[str]:
    """The names that the signers' model signatures and their spare copies may have."""
    own = _whose(verified)
    return frozenset((*own, *map(spare_name, own)))


def model_signature_digests(
    verified: VerifiedBundle, seen: Iterable[Path]
) -> dict[str, Digest | None]:
    """The digest of each model signature of which ``seen`` has a copy, by the names of both.

    It is that of the first copy that holds, ``None`` where none does.
    """
    paths: dict[str, list[Path]] = defaultdict(list)
    for path in seen:
        paths[path.name].append(path)
    own: dict[str, Digest | None] = {}
    for name, (variant, signer) in _whose(verified).items():
        copies = [*paths.get(name, ()), *paths.get(spare_name(name), ())]
        if copies:
            data = _first_that_holds(verified, variant, signer, copies)
            own[name] = None if data is None else Digest.of(data)
    # A variant may be called as another one's spare copy is: its own signature goes before.
    return {spare_name(name): digest for name, digest in own.items()} | own


def place_model_signatures(
    verified: VerifiedBundle,
    variants: Iterable[Variant],
    media: Media,
    staged: Path,
    progress: Progress,
) -> None:
    """Put into the folder of each of ``variants`` in ``staged`` its signature, as ``model.sig``.

    It is that of the first signer whose signature holds; there may be none.
    """
    for variant in variants:
        place = staged / variant.name / MODEL_SIGNATURE
        if os.path.lexists(place):
            progress.note(f"{variant.name}: has a file {MODEL_SIGNATURE} of its own, which stays")
            continue
        data = _signature_of(variant, verified, media, progress)
        if data is not None:
            # What stands in it beside what is signed could be anybody's: it is written anew.
            signed = parse_model_signature(data, place.name)
            write_file(place, encode_model_signature(signed), mode=0o444)  # as those beside it


def _signature_of(
    variant: Variant, verified: VerifiedBundle, media: Media, progress: Progress
) -> bytes | None:
    for name, (other, signer) in _whose(verified).items():
        if other is not variant:
            continue
        copies = [*media.copies(name), *media.copies(spare_name(name))]
        data = _first_that_holds(verified, variant, signer, copies)
        if data is not None:
            return data
        if copies:
            progress.note(f"{copies[0]}: does not hold, and is not installed")
    return None


def _whose(verified: VerifiedBundle) -> dict[str, tuple[Variant, Signer]]:
    """What is signed by whom, by the name of the signature; in order of the signers."""
    return {
        model_signature_name(variant.name, signer.key_id): (variant, signer)
        for signer in verified.signers
        if signer.key.algorithm == P256
        for variant in verified.bundle.variants
    }


def _first_that_holds(
    verified: VerifiedBundle, variant: Variant, signer: Signer, paths: Iterable[Path]
) -> bytes | None:
    files = folder_digests(verified.bundle, variant)
    for path in paths:
        try:
            data = read_capped(path, MAX_MODEL_SIGNATURE_SIZE)
            check_model_signature(data, signer.key.spki, files, path.name)
        except AirpackError:
            continue
        return data
    return None
