"""The lock: a recipe resolved. Canonical JSON, ``RECIPE.lock.json`` beside the recipe.

It names the commit and, of every wanted file, the size and the content id that the hub states
for it, so that the same bytes come again or none. The endpoint is not in it: the ids say what
the bytes are, whichever mirror serves them, and a mirror's address is nobody else's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.errors import AirpackError, MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.relpath import check_distinct, check_relpath

LOCK_SUFFIX = ".lock.json"
FORMAT = "airpack-lock"
FORMAT_VERSION = 1
MAX_LOCK_SIZE = 32 << 20
MAX_FILES = 1 << 16
MAX_ADAPTERS = 64
MAX_FILE_SIZE = 1 << 44

SHA256 = "sha256"
GIT_BLOB = "git-blob"
_DIGITS = {SHA256: 64, GIT_BLOB: 40}
_HEX = re.compile(r"[0-9a-f]+\Z")


@dataclass(frozen=True, order=True)
class ContentId:
    """What some bytes are, as the hub states it.

    ``sha256`` for what git LFS holds and for local files; ``git-blob`` for the rest: the sha1
    of ``blob <size>``, a NUL and the content (Pro Git, "Git Internals: Git Objects").
    """

    kind: str
    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != _DIGITS.get(self.kind) or not _HEX.match(self.hex):
            raise MalformedError(f"not a content id: {str(self)[:100]!a}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> ContentId:
        """Read ``sha256:…`` or ``git-blob:…``; raises ``MalformedError`` for anything else."""
        kind, _, digits = text.partition(":")
        return cls(kind, digits)


@dataclass(frozen=True)
class LockedFile:
    """A file of the source: its path there, its size in bytes, what it holds."""

    path: str
    size: int
    content: ContentId


@dataclass(frozen=True)
class HubCommit:
    """A repository on the hub at one commit, 40 hexadecimal digits."""

    repository: str
    revision: str

    def __post_init__(self) -> None:
        if len(self.revision) != 40 or not _HEX.match(self.revision):
            raise MalformedError(f"revision {self.revision[:80]!a} is not a commit of 40 digits")


@dataclass(frozen=True)
class Folder:
    """A local folder, as the recipe names it."""

    path: str


@dataclass(frozen=True)
class LockedAdapter:
    """The source of ``variant``, an adapter; the other fields are as in a lock."""

    variant: str
    source: HubCommit | Folder
    licence: str | None
    files: tuple[LockedFile, ...]
    gated: bool = False


@dataclass(frozen=True)
class SourceSignature:
    """The OpenSSF model signature that came with a source, and whose it must be.

    ``key`` is the digest of the SPKI in DER of the publisher's public key.
    """

    file: LockedFile
    key: Digest


@dataclass(frozen=True)
class Lock:
    """A recipe resolved. ``recipe`` is the digest of its bytes.

    ``files`` are the source's, ``texts`` those that the recipe itself names (relative to it),
    both in order of path. ``licence`` is the id that the model card states, if any. ``adapters``
    are in order of variant. ``signature`` is checked at the build, if the recipe asks for it.
    ``gated``: the hub gives the files only to who has accepted the licence.
    """

    recipe: Digest
    source: HubCommit | Folder
    licence: str | None
    files: tuple[LockedFile, ...]
    texts: tuple[LockedFile, ...] = ()
    adapters: tuple[LockedAdapter, ...] = ()
    signature: SourceSignature | None = None
    gated: bool = False

    @property
    def revision(self) -> str:
        """The commit; for a local folder the digest of its list of files."""
        if isinstance(self.source, HubCommit):
            return self.source.revision
        return Digest.of(canonical.encode(_files_json(self.files))).hex

    @property
    def size(self) -> int:
        """The bytes of all files of the source together."""
        return sum(file.size for file in self.files)

    def adapter(self, variant: str) -> LockedAdapter:
        """The adapter that is the recipe's ``variant``."""
        return next(adapter for adapter in self.adapters if adapter.variant == variant)


def encode_lock(lock: Lock) -> bytes:
    """Write a lock, having read it back as any reader will."""
    data = canonical.encode(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": lock.recipe.hex,
            "source": _source_json(lock.source),
            "licence": lock.licence,
            "files": _files_json(lock.files),
            "texts": _files_json(lock.texts),
            "adapters": [_adapter_json(adapter) for adapter in lock.adapters],
            **_signature_json(lock.signature),
            **_gated_json(lock.gated),
        }
    )
    parse_lock(data)
    return data


def _source_json(source: HubCommit | Folder) -> Json:
    if isinstance(source, HubCommit):
        return {"kind": "hub", "repository": source.repository, "revision": source.revision}
    return {"kind": "folder", "path": source.path}


def _adapter_json(adapter: LockedAdapter) -> Json:
    return {
        "variant": adapter.variant,
        "source": _source_json(adapter.source),
        "licence": adapter.licence,
        "files": _files_json(adapter.files),
        **_gated_json(adapter.gated),
    }


def _gated_json(gated: bool) -> dict[str, Json]:
    """The member that only gated sources have."""
    return {"gated": True} if gated else {}


def _signature_json(signature: SourceSignature | None) -> dict[str, Json]:
    """The member that only the lock of a signed source has."""
    if signature is None:
        return {}
    return {"signature": {"file": _files_json((signature.file,))[0], "key": signature.key.hex}}


def _files_json(files: tuple[LockedFile, ...]) -> list[Json]:
    return [{"path": f.path, "size": f.size, "content": str(f.content)} for f in files]


def parse_lock(data: bytes, *, where: str = "lock") -> Lock:
    """Read a lock; raises ``MalformedError`` for anything but what ``encode_lock`` writes."""
    fields = Fields.of(canonical.decode(data, what=where, max_size=MAX_LOCK_SIZE), where)
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    if fields.integer("format_version") != FORMAT_VERSION:
        raise MalformedError(
            f"{where}: not of format version {FORMAT_VERSION}", hint="airpack lock RECIPE"
        )
    fields.only(
        "format", "format_version", "recipe", "source", "licence", "files", "texts", "adapters",
        "signature", "gated",
    )  # fmt: skip
    try:
        lock = Lock(
            recipe=fields.digest("recipe"),
            source=_parse_source(fields.mapping("source")),
            licence=fields.optional_text("licence"),
            files=_parse_source_files(fields),
            texts=_parse_files(fields, "texts"),
            adapters=_parse_adapters(fields),
            signature=_parse_signature(fields),
            gated=fields.flag("gated", False),
        )
    except MalformedError:
        raise
    except AirpackError as error:
        raise MalformedError(f"{where}: {error.message}") from None
    return lock


def _parse_source(fields: Fields) -> HubCommit | Folder:
    kind = fields.text("kind")
    if kind == "hub":
        fields.only("kind", "repository", "revision")
        return HubCommit(fields.text("repository"), fields.text("revision"))
    if kind == "folder":
        fields.only("kind", "path")
        return Folder(fields.text("path"))
    raise fields.refuse("kind", f"{kind[:40]!a} is neither hub nor folder")


def _parse_adapters(fields: Fields) -> tuple[LockedAdapter, ...]:
    if not fields.has("adapters"):  # a lock from before there were any
        return ()
    if len(fields.items("adapters")) > MAX_ADAPTERS:
        raise fields.refuse("adapters", f"more than {MAX_ADAPTERS} entries")
    adapters = fields.each("adapters", _parse_adapter)
    variants = [adapter.variant for adapter in adapters]
    if variants != sorted(set(variants)):
        raise fields.refuse("adapters", "not in order of variant, each once")
    return adapters


def _parse_adapter(fields: Fields) -> LockedAdapter:
    fields.only("variant", "source", "licence", "files", "gated")
    return LockedAdapter(
        variant=fields.text("variant"),
        source=_parse_source(fields.mapping("source")),
        licence=fields.optional_text("licence"),
        files=_parse_source_files(fields),
        gated=fields.flag("gated", False),
    )


def _parse_signature(fields: Fields) -> SourceSignature | None:
    if not fields.has("signature"):
        return None
    signature = fields.mapping("signature")
    signature.only("file", "key")
    return SourceSignature(_parse_file(signature.mapping("file")), signature.digest("key"))


def _parse_source_files(fields: Fields) -> tuple[LockedFile, ...]:
    """Files of a source, whose paths must mean the same on every system."""
    files = _parse_files(fields, "files")
    for file in files:
        check_relpath(file.path)
    check_distinct(file.path for file in files)
    return files


def _parse_files(fields: Fields, key: str) -> tuple[LockedFile, ...]:
    if len(fields.items(key)) > MAX_FILES:
        raise fields.refuse(key, f"more than {MAX_FILES} entries")
    files = fields.each(key, _parse_file)
    paths = [file.path for file in files]
    if paths != sorted(set(paths)):
        raise fields.refuse(key, "not in order of path, each once")
    return files


def _parse_file(fields: Fields) -> LockedFile:
    fields.only("path", "size", "content")
    return LockedFile(
        path=fields.text("path"),
        size=fields.integer("size", most=MAX_FILE_SIZE),
        content=ContentId.parse(fields.text("content")),
    )
