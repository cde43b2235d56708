"""The OpenSSF model signature that a publisher put beside the weights, checked at the build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.source.fetch import fetch_files
from packager.connected.source.hub import Hub
from packager.connected.source.local import check_folder, lock_folder
from packager.errors import TrustError, UsageError
from packager.format.digest import Digest
from packager.format.lock import SHA256, HubCommit, Lock, LockedFile, SourceSignature
from packager.format.model_signature import MAX_MODEL_SIGNATURE_SIZE, MODEL_SIGNATURE
from packager.format.recipe import Recipe
from packager.progress import Progress
from packager.store.atomic import read_capped
from packager.store.digests import file_digest
from packager.trust.keys import MAX_KEY_FILE_SIZE
from packager.trust.model_signature import parse_model_key, signed_files


def lock_hub_signature(
    recipe: Recipe, recipe_folder: Path, files: Mapping[str, LockedFile], progress: Progress
) -> SourceSignature | None:
    """Pin the signature among the ``files`` of a repository, if the recipe says who signed.

    Raises ``TrustError`` where the repository has none, or the recipe's key is no such key.
    """
    found = files.get(MODEL_SIGNATURE)
    if recipe.signed_by is None:
        _say_unchecked(found is not None, progress)
        return None
    return _pin(found, _source_key(recipe.signed_by, recipe_folder))


def lock_folder_signature(
    recipe: Recipe, recipe_folder: Path, folder: Path, paths: Iterable[str], progress: Progress
) -> SourceSignature | None:
    """As :func:`lock_hub_signature`, of a local ``folder`` that holds ``paths``."""
    present = [path for path in paths if path == MODEL_SIGNATURE]
    if recipe.signed_by is None:
        _say_unchecked(bool(present), progress)
        return None
    found = next(iter(lock_folder(folder, present, progress)), None)
    return _pin(found, _source_key(recipe.signed_by, recipe_folder))


def _say_unchecked(present: bool, progress: Progress) -> None:
    if present:
        progress.note(
            f"the source comes with a {MODEL_SIGNATURE}, which nobody checks: name the "
            "publisher's public key in the recipe, source.signed_by"
        )


def _pin(found: LockedFile | None, spki: bytes) -> SourceSignature:
    if found is None:
        raise TrustError(
            f"the source has no {MODEL_SIGNATURE}, and the recipe says who signed it",
            hint="ask the publisher for it; or leave source.signed_by out, and nobody checks it",
        )
    return SourceSignature(found, Digest.of(spki))


def _source_key(path: str, recipe_folder: Path) -> bytes:
    place = recipe_folder / path
    if not place.is_file():
        raise UsageError(f"{place}: the recipe names this public key, and there is no such file")
    return parse_model_key(read_capped(place.resolve(), MAX_KEY_FILE_SIZE), str(place))


def check_source_signature(
    recipe: Recipe,
    recipe_folder: Path,
    lock: Lock,
    cache: Cache,
    progress: Progress,
    *,
    hub: Hub | None = None,
) -> None:
    """Check the signature that came with the source over every file that the lock names.

    It is done before any weights are fetched: of these the lock has the digest already, and of
    the small files that it knows by another id the bytes are fetched now. Files that are signed
    and not locked are no fault: the recipe leaves them out. Raises ``TrustError`` for one that is
    locked and not signed so, and where the signature is not the recipe's key's.
    """
    if lock.signature is None or recipe.signed_by is None:
        return
    spki = _source_key(recipe.signed_by, recipe_folder)
    if Digest.of(spki) != lock.signature.key:
        raise UsageError(
            f"{recipe_folder / recipe.signed_by}: another key than when the recipe was locked",
            hint="airpack lock RECIPE",
        )
    unknown = [file for file in lock.files if file.content.kind != SHA256]
    paths = _have(lock, (lock.signature.file, *unknown), recipe_folder, cache, progress, hub)
    data = read_capped(paths[MODEL_SIGNATURE], MAX_MODEL_SIGNATURE_SIZE)
    signed = signed_files(data, spki, MODEL_SIGNATURE)
    for file in lock.files:
        has = file_digest(paths[file.path]) if file.path in paths else Digest(file.content.hex)
        _check_signed(file.path, has, signed)
    left_out = len(signed) - len(lock.files)
    more = f"; {left_out} more that are signed are not wanted" if left_out else ""
    progress.note(
        f"{MODEL_SIGNATURE} of the source, by the key {lock.signature.key.hex[:16]}, holds over "
        f"all {len(lock.files)} files{more}"
    )


def _have(
    lock: Lock,
    files: tuple[LockedFile, ...],
    recipe_folder: Path,
    cache: Cache,
    progress: Progress,
    hub: Hub | None,
) -> Mapping[str, Path]:
    if isinstance(lock.source, HubCommit):
        return fetch_files(lock.source, files, cache, progress, hub or Hub(progress=progress))
    return check_folder(recipe_folder / lock.source.path, files, progress)


def _check_signed(path: str, digest: Digest, signed: Mapping[str, Digest]) -> None:
    if path not in signed:
        raise TrustError(
            f"{path}: is not among the files that the source's {MODEL_SIGNATURE} is over",
            hint="leave it out by source.exclude, or ask the publisher why it is not signed",
        )
    if signed[path] != digest:
        raise TrustError(
            f"{path}: not the file that the source's {MODEL_SIGNATURE} is over",
            hint="do not use this revision before its publisher has said what changed",
        )
