"""``bundle.json``: the index of a bundle, canonical JSON, reached only through signed sums.

The index says where each file lies in the payload, the digest of each chunk, which volume
holds which bytes, what each variant is and how it must answer. Parsing checks that all of it
fits together, so that code behind it can do arithmetic without looking back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from packager.errors import AirpackError, MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.held import HeldFile, Setup, parse_held, parse_setup, setup_from
from packager.format.relpath import check_distinct, check_relpath
from packager.format.tar import plan_tar
from packager.format.target import Target
from packager.format.variant import Variant, variant_directory
from packager.format.volumes import (
    ParityVolume,
    Payload,
    Volume,
    VolumeFile,
    check_volumes,
    parse_parity,
    parse_payload,
    parse_volumes,
    volume_files,
)

INDEX_NAME = "bundle.json"
LOCK_NAME = "lock.json"  # beside the index, which has its digest
FORMAT = "airpack-bundle"
FORMAT_VERSION = 1
KNOWN_FEATURES: frozenset[str] = frozenset()

MAX_INDEX_SIZE = 400 << 20  # 16 TiB of payload: 4 Mi digests of 67 bytes, and room
MAX_FILES = 1 << 16
MAX_VARIANTS = 64


@dataclass(frozen=True)
class PayloadFile:
    """A file inside the payload. ``size`` and ``offset`` in bytes."""

    path: str
    size: int
    offset: int
    digest: Digest

    @property
    def end(self) -> int:
        """The offset behind the file's last byte."""
        return self.offset + self.size


VariantFile = PayloadFile | HeldFile


@dataclass(frozen=True)
class Origin:
    """Where the weights came from. ``revision`` is a commit, or the digest of a local folder.

    ``stripped`` are the keys that were left out of JSON files, as ``config.json: auto_map``.
    """

    kind: str
    repository: str
    revision: str
    licence: str | None
    stripped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The index, parsed and consistent.

    A delta has ``base``, the digest of the inventory that it was built against; what it leaves
    out is ``held``, and where airpack itself is left out too, ``set_up_with``.
    """

    name: str
    version: str
    sequence: int
    created: str
    expires: str | None
    signers: int
    airpack: str
    engine: str
    origin: Origin
    lock: Digest
    payload: Payload
    volumes: tuple[Volume, ...]
    parity: tuple[ParityVolume, ...]
    files: tuple[PayloadFile, ...]
    variants: tuple[Variant, ...]
    targets: tuple[Target, ...]
    held: tuple[HeldFile, ...] = ()
    base: Digest | None = None
    set_up_with: Setup | None = None

    @property
    def title(self) -> str:
        """The name of the bundle's directory."""
        return f"{self.name}-{self.version}"

    @property
    def is_delta(self) -> bool:
        """Whether something is left out."""
        return bool(self.held or self.set_up_with)

    @cached_property
    def setup(self) -> Setup | None:
        """What airpack is set up from: in the payload, or with an earlier bundle."""
        return self.set_up_with or setup_from(self.title, self.files)

    @cached_property
    def volume_files(self) -> tuple[VolumeFile, ...]:
        """The volumes, then the parity volumes, as files."""
        return volume_files(self.payload, self.volumes, self.parity)

    @cached_property
    def chunk_digests(self) -> tuple[Digest, ...]:
        """The digest of every chunk, by its number: the payload's, then those of parity."""
        return (*self.payload.chunks, *(digest for p in self.parity for digest in p.chunks))

    @cached_property
    def _first_chunks(self) -> tuple[int, ...]:
        return tuple(file.chunks.start for file in self.volume_files)

    def volume_of(self, chunk: int) -> VolumeFile:
        """The volume that holds ``chunk``."""
        return self.volume_files[bisect_right(self._first_chunks, chunk) - 1]

    @cached_property
    def file_by_path(self) -> dict[str, PayloadFile]:
        """The files by their path in the payload."""
        return {file.path: file for file in self.files}

    def variant_files(self, variant: Variant) -> tuple[VariantFile, ...]:
        """The files that ``variant`` is made of, carried or held."""
        files: tuple[VariantFile, ...] = self.carried_files(variant)
        return files + self.held_files(variant)

    def base_of(self, variant: Variant) -> Variant | None:
        """The variant that ``variant``, an adapter, changes; ``None`` for a model by itself."""
        name = variant.base.variant if variant.base else None
        return next((other for other in self.variants if other.name == name), None)

    def model_file(self, variant: Variant) -> VariantFile:
        """The file of ``variant`` that the engine opens; there must be one."""
        path = f"{variant.directory}/{variant.model}"
        return next(file for file in self.variant_files(variant) if file.path == path)

    def carried_files(self, variant: Variant) -> tuple[PayloadFile, ...]:
        """The files of ``variant`` that are in the payload."""
        return tuple(f for f in self.files if f.path.startswith(f"{variant.directory}/"))

    def held_files(self, variant: Variant) -> tuple[HeldFile, ...]:
        """The files of ``variant`` that the host holds."""
        return tuple(f for f in self.held if f.path.startswith(f"{variant.directory}/"))

    def files_touching(self, begin: int, end: int) -> Iterator[PayloadFile]:
        """The files with a byte in the payload's range ``begin`` to ``end``."""
        return (f for f in self.files if f.offset < end and f.end > begin)


def encode_bundle(bundle: Bundle) -> bytes:
    """Write the index, having read it back as any host will."""
    data = canonical.encode(_bundle_json(bundle))
    parse_bundle(data)
    return data


def parse_bundle(data: bytes) -> Bundle:
    """Read an index; raises ``MalformedError`` for anything that does not fit together."""
    document = canonical.decode(data, what=INDEX_NAME, max_size=MAX_INDEX_SIZE)
    fields = Fields.of(document, INDEX_NAME)
    _check_format(fields)
    fields.only("format", "format_version", "features", *_BUNDLE_FIELDS)
    try:
        bundle = _parse_bundle(fields)
        check_volumes(fields, bundle.payload, bundle.volumes, bundle.parity)
        _check_consistent(bundle)
    except MalformedError:
        raise
    except AirpackError as error:
        raise MalformedError(f"{INDEX_NAME}: {error.message}") from None
    return bundle


_BUNDLE_FIELDS = (
    "name", "version", "sequence", "created", "expires", "signers", "airpack", "engine",
    "origin", "lock", "payload", "volumes", "parity", "files", "held", "base",
    "set_up_with", "variants", "targets",
)  # fmt: skip


def _check_format(fields: Fields) -> None:
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    version = fields.integer("format_version", least=1)
    if version != FORMAT_VERSION:
        raise MalformedError(
            f"{INDEX_NAME}: format version {version}; this airpack reads {FORMAT_VERSION}",
            hint="install the airpack that travels with the bundle: sh setup.sh",
        )
    unknown = set(fields.texts("features")) - KNOWN_FEATURES
    if unknown:
        needed = ", ".join(f"{feature[:80]!a}" for feature in sorted(unknown)[:5])
        raise MalformedError(
            f"{INDEX_NAME}: needs {needed}, which this airpack does not have",
            hint="install the airpack that travels with the bundle: sh setup.sh",
        )


def _parse_bundle(fields: Fields) -> Bundle:
    return Bundle(
        name=fields.bare_name("name"),
        version=fields.bare_name("version"),
        sequence=fields.integer("sequence", least=1),
        created=fields.timestamp("created"),
        expires=fields.timestamp("expires") if fields.has("expires") else None,
        signers=fields.integer("signers", least=1, most=100),
        airpack=fields.line("airpack"),
        engine=fields.line("engine"),
        origin=_parse_origin(fields.mapping("origin")),
        lock=fields.digest("lock"),
        payload=parse_payload(fields.mapping("payload")),
        volumes=parse_volumes(fields),
        parity=parse_parity(fields),
        files=_bounded(fields, "files", MAX_FILES).each("files", _parse_file),
        held=_bounded(fields, "held", MAX_FILES).each("held", parse_held),
        base=fields.digest("base") if fields.has("base") else None,
        set_up_with=parse_setup(fields.mapping("set_up_with"))
        if fields.has("set_up_with")
        else None,
        variants=_bounded(fields, "variants", MAX_VARIANTS).each("variants", Variant.parse),
        targets=_bounded(fields, "targets", 16).each("targets", Target.parse),
    )


def _bounded(fields: Fields, key: str, most: int) -> Fields:
    if len(fields.items(key)) > most:
        raise fields.refuse(key, f"more than {most} entries")
    return fields


def _parse_origin(fields: Fields) -> Origin:
    fields.only("kind", "repository", "revision", "licence", "stripped")
    return Origin(
        kind=fields.line("kind"),
        repository=fields.line("repository"),
        revision=fields.line("revision"),
        licence=fields.line("licence") if fields.has("licence") else None,
        stripped=fields.lines("stripped") if fields.has("stripped") else (),
    )


def _parse_file(fields: Fields) -> PayloadFile:
    fields.only("path", "size", "offset", "digest")
    return PayloadFile(
        path=check_relpath(fields.text("path")),
        size=fields.integer("size"),
        offset=fields.integer("offset"),
        digest=fields.digest("digest"),
    )


def _check_consistent(bundle: Bundle) -> None:
    _check_files(bundle)
    _check_variants(bundle)
    _check_bases(bundle)
    _check_held(bundle)


def _check_files(bundle: Bundle) -> None:
    if len(bundle.files) + len(bundle.held) > MAX_FILES:
        raise MalformedError(f"{INDEX_NAME}: files and held: more than {MAX_FILES} entries")
    check_distinct(chain((f.path for f in bundle.files), (f.path for f in bundle.held)))
    layout = plan_tar((file.path, file.size) for file in bundle.files)
    for file, entry in zip(bundle.files, layout.entries, strict=True):
        if file.offset != entry.offset:
            raise MalformedError(f"{INDEX_NAME}: {file.path!a} is not where the payload has it")
    if bundle.payload.size != layout.size:
        raise MalformedError(f"{INDEX_NAME}: the files do not add up to the payload's size")


def _check_variants(bundle: Bundle) -> None:
    names = [variant.name for variant in bundle.variants]
    if not names or len(set(names)) != len(names):
        raise MalformedError(f"{INDEX_NAME}: no variants, or two of one name")
    for variant in bundle.variants:
        if variant.directory != variant_directory(bundle.name, variant.name):
            raise MalformedError(f"{INDEX_NAME}: variant {variant.name} is not in its directory")
        paths = {file.path for file in bundle.variant_files(variant)}
        if not paths:
            raise MalformedError(f"{INDEX_NAME}: variant {variant.name} has no files")
        model_path = f"{variant.directory}/{variant.model}"
        if variant.model is not None and model_path not in paths:
            raise MalformedError(f"{INDEX_NAME}: {model_path!a} is not in the payload, nor held")


def _check_bases(bundle: Bundle) -> None:
    """Each adapter must be bound to the very file that the engine opens beneath it."""
    for adapter in bundle.variants:
        if adapter.base is None:
            continue
        base = bundle.base_of(adapter)
        if base is None or base.base is not None or base.model is None or adapter.model is None:
            raise MalformedError(
                f"{INDEX_NAME}: adapter {adapter.name}: {adapter.base.variant!a} is no model here"
            )
        if bundle.model_file(base).digest != adapter.base.digest:
            raise MalformedError(
                f"{INDEX_NAME}: adapter {adapter.name}: is for another file than {base.name} has"
            )


def _check_held(bundle: Bundle) -> None:
    if bundle.is_delta and bundle.base is None:
        raise MalformedError(f"{INDEX_NAME}: held or set_up_with: there is no base that says so")
    used = {file for variant in bundle.variants for file in bundle.held_files(variant)}
    for file in bundle.held:
        if file not in used:
            raise MalformedError(f"{INDEX_NAME}: held: {file.path!a} is of no variant")
    if bundle.set_up_with and setup_from(bundle.title, bundle.files):  # all of it, or none
        raise MalformedError(f"{INDEX_NAME}: set_up_with: the payload has wheels or libraries too")


def _bundle_json(bundle: Bundle) -> dict[str, Json]:
    origin, payload = bundle.origin, bundle.payload
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "features": [],
        "name": bundle.name,
        "version": bundle.version,
        "sequence": bundle.sequence,
        "created": bundle.created,
        "expires": bundle.expires,
        "signers": bundle.signers,
        "airpack": bundle.airpack,
        "engine": bundle.engine,
        "origin": {
            "kind": origin.kind,
            "repository": origin.repository,
            "revision": origin.revision,
            "licence": origin.licence,
            **({"stripped": list(origin.stripped)} if origin.stripped else {}),
        },
        "lock": bundle.lock.hex,
        "payload": payload.encode(),
        "volumes": [volume.encode() for volume in bundle.volumes],
        "parity": [volume.encode() for volume in bundle.parity],
        "files": [
            {"path": f.path, "size": f.size, "offset": f.offset, "digest": f.digest.hex}
            for f in bundle.files
        ],
        "held": [file.encode() for file in bundle.held],
        "base": bundle.base.hex if bundle.base else None,
        "set_up_with": bundle.set_up_with.encode() if bundle.set_up_with else None,
        "variants": [variant.encode() for variant in bundle.variants],
        "targets": [target.encode() for target in bundle.targets],
    }
