"""What a delta leaves out: a part of the index, as :mod:`packager.format.volumes` is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.relpath import check_relpath
from packager.format.volumes import MAX_PAYLOAD_SIZE

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


def parse_title(fields: Fields, key: str) -> str:
    """The title of a bundle, ``<name>-<version>``; raises the error of ``fields`` for another."""
    value = fields.text(key)
    if not _TITLE.match(value):
        raise fields.refuse(key, f"{value[:80]!a} is not the title of a bundle")
    return value
