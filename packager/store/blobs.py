"""The store: files by content. A blob is there whole or not at all, and never changes.

A blob comes from :mod:`packager.store.partials`, by one rename.
"""

from __future__ import annotations

import os
from pathlib import Path

from packager.format.digest import Digest
from packager.store.atomic import TEMPORARY_PREFIX, fsync_directory, naming_refusals
from packager.store.home import Home


def has_blob(home: Home, digest: Digest, size: int) -> bool:
    """Whether the store holds that content, by its name and size."""
    try:
        return home.blob(digest).stat().st_size == size
    except FileNotFoundError:
        return False


def link_blob(home: Home, digest: Digest, path: Path) -> None:
    """Give the blob a second name, at ``path``, without a second copy of its bytes."""
    with naming_refusals(path):
        os.link(home.blob(digest), path)


def relink_blob(home: Home, digest: Digest, path: Path) -> None:
    """Make ``path`` a name of the blob, at once, whatever it was before."""
    # Not beside it: a name of ours has no place among the files of a model.
    temporary = home.models / f"{TEMPORARY_PREFIX}{digest.hex}"
    with naming_refusals(path):
        temporary.unlink(missing_ok=True)
        os.link(home.blob(digest), temporary)
        temporary.rename(path)
        temporary.unlink(missing_ok=True)  # rename(2) does nothing where both are one file
        fsync_directory(path.parent)


def collect_garbage(home: Home) -> int:
    """Remove every blob that no generation links to; returns the bytes freed."""
    freed = 0
    with naming_refusals(home.blobs):
        for path in sorted(home.blobs.glob("??/*")):
            freed += remove_unlinked(path)
    return freed


def remove_unlinked(path: Path) -> int:
    """Remove a blob that no generation links to; returns the bytes freed."""
    with naming_refusals(path):
        status = path.stat()
        if status.st_nlink > 1:
            return 0
        path.unlink()
        return status.st_size
