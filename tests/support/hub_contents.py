"""What a hub on loopback holds, what it was asked, and what it is told to do wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LFS_NAMES = (".safetensors", ".bin", ".model", ".gguf")
_LFS_SIZE = 10 << 20


@dataclass(frozen=True)
class Request:
    """One request as it came in; ``server`` is ``hub`` or ``cdn``, header names lower case.

    ``file`` is the path in the repository, where the request is for the bytes of one.
    """

    server: str
    method: str
    path: str
    headers: Mapping[str, str]
    file: str | None


@dataclass
class Fault:
    """What goes wrong with one file, the next ``times`` times."""

    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None


@dataclass(frozen=True)
class File:
    """A file of a commit; ``lfs`` if the hub keeps it in LFS."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        """The git object: of the LFS pointer, for a file kept in LFS."""
        data = self.data
        if self.lfs:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                self.sha256.encode(),
                len(self.data),
            )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


Commit = dict[str, File]


def commit_of(files: Mapping[str, bytes] | Path) -> Commit:
    """The files of a commit by their paths: as given, or all below a folder."""
    data = _read_folder(files) if isinstance(files, Path) else files
    return {
        path: File(content, path.endswith(_LFS_NAMES) or len(content) > _LFS_SIZE)
        for path, content in sorted(data.items())
    }


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
