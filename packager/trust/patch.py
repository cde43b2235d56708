"""The decision: may this patch's chunks and files stand for those of a bundle?

Pure, as :mod:`packager.trust.verify` is. The steps, each ending the matter if it fails:

1. as many trusted keys must have signed the patch's sums as the keyring requires;
2. the sums are parsed, and must list the patch's document and its file of chunks;
3. the document must have the digest that the sums give, and is parsed only then;
4. it must name the very bundle that is to be repaired, by the digest of its signed sums;
5. each chunk must have the size and the digest that the bundle's own signed index gives it, each
   file the digest that its signed sums list, and be no volume.

So a patch can only ever bring what the bundle's signers signed; that it is signed too keeps
anybody else's bytes from being read at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from packager.errors import DigestMismatchError, IntegrityError, MalformedError
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.patch import CHUNKS_NAME, PATCH_NAME, Patch, PatchChunk, PatchFile, parse_patch
from packager.format.sums import SUMS_NAME, parse_sums
from packager.trust.keyring import Keyring
from packager.trust.verify import Evidence, VerifiedBundle, require_signers


@dataclass(frozen=True)
class VerifiedPatch:
    """A patch that trusted keys signed, for one bundle. Made by :func:`verify_patch` alone."""

    patch: Patch
    evidence: Evidence


def verify_patch(
    evidence: Evidence, verified: VerifiedBundle, keyring: Keyring, *, now: datetime
) -> VerifiedPatch:
    """Decide, in the steps of this module's docstring; the document is the evidence's index.

    Raises ``TrustError`` or ``IntegrityError``.
    """
    require_signers(evidence, keyring, now=now)
    sums = parse_sums(evidence.sums)
    patch = _parse_listed_patch(evidence.index, sums)
    if patch.bundle != verified.digest:
        raise IntegrityError(
            f"{PATCH_NAME}: for {patch.title} with the sums {patch.bundle.hex[:16]}; this is "
            f"{verified.bundle.title} with {verified.digest.hex[:16]}",
            hint="name the patch that was made for this bundle's own ticket",
        )
    for chunk in patch.chunks:
        _check_chunk(chunk, verified.bundle)
    for file in patch.files:
        _check_file(file, verified)
    return VerifiedPatch(patch, evidence)


def _parse_listed_patch(document: bytes, sums: Mapping[str, Digest]) -> Patch:
    for name in (PATCH_NAME, CHUNKS_NAME):
        if name not in sums:
            raise MalformedError(f"{SUMS_NAME}: does not list {name}")
    if Digest.of(document) != sums[PATCH_NAME]:
        raise DigestMismatchError(f"{PATCH_NAME}: not the file that was signed")
    return parse_patch(document)


def _check_chunk(chunk: PatchChunk, bundle: Bundle) -> None:
    if chunk.number >= len(bundle.chunk_digests):
        raise MalformedError(
            f"{PATCH_NAME}: chunk {chunk.number}; the bundle has {len(bundle.chunk_digests)}"
        )
    size = bundle.volume_of(chunk.number).place(chunk.number)[1]
    if chunk.digest != bundle.chunk_digests[chunk.number] or chunk.size != size:
        raise MalformedError(f"{PATCH_NAME}: chunk {chunk.number} is not the one the bundle has")


def _check_file(file: PatchFile, verified: VerifiedBundle) -> None:
    volumes = {volume.name for volume in verified.bundle.volume_files}
    if file.name in volumes or verified.sums.get(file.name) != file.digest:
        raise MalformedError(f"{PATCH_NAME}: {file.name} is not a small file that the bundle has")
