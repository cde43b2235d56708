"""What a delta leaves out: the store must hold it, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from packager.errors import DigestMismatchError, MissingVolumeError
from packager.format.bundle import Bundle
from packager.format.held import HeldFile
from packager.progress import Progress
from packager.store.blobs import has_blob
from packager.store.digests import file_digest
from packager.store.home import Home

_NAMED = 5


def check_held(bundle: Bundle, files: Sequence[HeldFile], home: Home, progress: Progress) -> None:
    """Make sure that the store holds ``files``, which ``bundle`` does not carry.

    Their bytes are read again: no medium vouches for them. The caller holds the home's lock.
    Raises ``MissingVolumeError`` naming the bundles that carried what is missing, before
    anything is read, and ``IntegrityError`` naming a damaged file. Changes nothing.
    """
    distinct = {file.digest: file for file in files}.values()
    missing = [file for file in distinct if not has_blob(home, file.digest, file.size)]
    if missing:
        raise _missing(bundle, missing)
    if not distinct:
        return
    with progress.task("checking what is held", sum(file.size for file in distinct)) as task:
        for file in distinct:
            blob = home.blob(file.digest)
            if file_digest(blob, task) != file.digest:
                raise DigestMismatchError(
                    f"{blob}: damaged on this host; {bundle.title} needs it for {file.path}",
                    hint=f"airpack uninstall {bundle.name}, airpack gc, then install "
                    f"{file.bundle} again, and this bundle behind it",
                )


def _missing(bundle: Bundle, missing: Sequence[HeldFile]) -> MissingVolumeError:
    paths = ", ".join(file.path for file in missing[:_NAMED])
    more = f", and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    titles = list(dict.fromkeys(file.bundle for file in missing))
    sources = ", ".join(titles[:_NAMED])
    return MissingVolumeError(
        f"{bundle.title} is a delta, and this host does not hold {paths}{more}; carried by "
        f"{sources}{', and others' if len(titles) > _NAMED else ''}",
        hint=f"airpack install {titles[0]}, then this again; or ask for a bundle without --base",
    )
