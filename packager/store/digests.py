"""The digest of a file on this disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from packager.format.digest import Digest
from packager.store.atomic import naming_refusals, open_regular

_BUFFER_SIZE = 1 << 20


def file_digest(path: Path) -> Digest:
    """The digest of a regular file, read through one small buffer."""
    state = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_SIZE))
    with naming_refusals(path), open_regular(path) as descriptor:
        while count := os.readv(descriptor, [buffer]):
            state.update(buffer[:count])
    return Digest(state.hexdigest())
