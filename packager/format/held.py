"""What a delta leaves out: a part of the index, as :mod:`packager.format.volumes` is.

Files of the variants, which the host's store must hold; and the wheels and libraries that airpack
is set up from, which no store keeps: that the host has them is told by what it was set up with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.relpath import check_relpath
from packager.format.volumes import MAX_PAYLOAD_SIZE

SETUP_DIRECTORY = "setup"  # of the payload
MAX_SETUP_FILES = 4096  # as many as one medium may have

_SETUP_PART = re.compile(rf"{SETUP_DIRECTORY}/[^/]+\.(?:whl|so\.1)\Z")
_REQUIREMENTS = re.compile(rf"{SETUP_DIRECTORY}/requirements-[0-9.]+\.txt\Z")
_TITLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}-[a-z0-9][a-z0-9._-]{0,62}\Z")


@dataclass(frozen=True)
class HeldFile:
    """A file of a variant that is not in the payload, since the host holds it. ``size`` in bytes.

    ``bundle`` is the title of the earlier bundle that carried it.
    """

    path: str
    size: int
    digest: Digest
    bundle: str

    def encode(self) -> dict[str, Json]:
        """The document that :func:`parse_held` reads."""
        return {
            "path": self.path,
            "size": self.size,
            "digest": self.digest.hex,
            "bundle": self.bundle,
        }


def parse_held(fields: Fields) -> HeldFile:
    """Read an entry of the list; raises ``MalformedError`` or ``UnsafeContentError``."""
    fields.only("path", "size", "digest", "bundle")
    return HeldFile(
        path=check_relpath(fields.text("path")),
        size=fields.integer("size", most=MAX_PAYLOAD_SIZE),
        digest=fields.digest("digest"),
        bundle=parse_title(fields, "bundle"),
    )


@dataclass(frozen=True, order=True)
class SetupFile:
    """A wheel or a library, by its ``path`` in the payload that carried it. ``size`` in bytes."""

    path: str
    size: int
    digest: Digest


@dataclass(frozen=True, order=True)
class Setup:
    """All that airpack is set up from with the bundle titled ``bundle``, in order of the paths."""

    bundle: str
    files: tuple[SetupFile, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    def encode(self) -> dict[str, Json]:
        """The document that :func:`parse_setup` reads."""
        return {
            "bundle": self.bundle,
            "files": [{"path": f.path, "size": f.size, "digest": f.digest.hex} for f in self.files],
        }


def is_setup_part(path: str) -> bool:
    """Whether airpack is set up from the payload's file ``path``: no text that lies beside."""
    return _SETUP_PART.match(path) is not None


class _File(Protocol):
    """A file of a payload, planned or in an index."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> Digest: ...


def is_requirements(path: str) -> bool:
    """Whether the payload's file ``path`` names, by digest, all wheels for some Python."""
    return _REQUIREMENTS.match(path) is not None


def setup_from(bundle: str, files: Iterable[_File]) -> Setup | None:
    """What airpack is set up from with ``bundle``, whose payload has ``files``, if with any."""
    parts = (SetupFile(f.path, f.size, f.digest) for f in files if is_setup_part(f.path))
    found = tuple(sorted(parts))
    return Setup(bundle, found) if found else None


def parse_setup(fields: Fields) -> Setup:
    """Read it where the index or an inventory has it; raises as :func:`parse_held` does."""
    fields.only("bundle", "files")
    if len(fields.items("files")) > MAX_SETUP_FILES:
        raise fields.refuse("files", f"more than {MAX_SETUP_FILES} entries")
    setup = Setup(parse_title(fields, "bundle"), fields.each("files", _parse_setup_file))
    paths = [file.path for file in setup.files]
    if not paths or paths != sorted({*paths}):
        raise fields.refuse("files", "none, or not each once, in order of their paths")
    return setup


def _parse_setup_file(fields: Fields) -> SetupFile:
    fields.only("path", "size", "digest")
    path = check_relpath(fields.text("path"))
    if not is_setup_part(path):
        raise fields.refuse("path", f"{path[:80]!a} is no wheel or library of {SETUP_DIRECTORY}/")
    return SetupFile(path, fields.integer("size", most=MAX_PAYLOAD_SIZE), fields.digest("digest"))


def parse_title(fields: Fields, key: str) -> str:
    """The title of a bundle, ``<name>-<version>``; raises the error of ``fields`` for another."""
    value = fields.text(key)
    if not _TITLE.match(value):
        raise fields.refuse(key, f"{value[:80]!a} is not the title of a bundle")
    return value
