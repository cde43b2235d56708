"""``provenance.json``: how a bundle was made, as an in-toto statement with SLSA v1 provenance.

Source: https://slsa.dev/spec/v1.0/provenance. One person's host made it, with nobody to vouch for
that host but the keys that sign: Build L1 and no more. docs/EVIDENCE.md says what each field has.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from packager.evidence.materials import Materials, package_url
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.lock import GIT_BLOB, Folder, HubCommit, LockedFile
from packager.format.recipe import COMPRESSED_TENSORS, GGUF, LORA, SAFETENSORS, Recipe
from packager.format.statement import PROVENANCE_TYPE, Acceptance, encode_statement
from packager.format.variant import Variant

BUILD_TYPE = "urn:airpack:build:1"
BUILDER = "urn:airpack:host"
FALLBACKS_NAMED = 256
RENDERED_CHARACTERS = 4096

_PATHS = ("matrix", "path", "signed_by", "text")  # members of the recipe, relative to it or not


def make_provenance(materials: Materials, beside: Mapping[str, Digest]) -> bytes:
    """The statement, as canonical JSON; ``beside`` are the documents that it speaks of, too."""
    bundle = materials.bundle
    files = {f.path: f.digest for v in bundle.variants for f in bundle.variant_files(v)}
    predicate: dict[str, Json] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _asked(materials),
            "internalParameters": {
                "variants": [_made(materials, variant) for variant in bundle.variants]
            },
            "resolvedDependencies": [*_sources(materials), *_setup(materials)],
        },
        "runDetails": {
            "builder": {
                "id": BUILDER,
                "version": {"airpack": bundle.airpack, "engine": bundle.engine},
            },
            "metadata": {
                "invocationId": f"urn:uuid:{_invocation(materials)}",
                "startedOn": bundle.created,
            },
        },
    }
    return encode_statement({**files, **beside}, PROVENANCE_TYPE, predicate)


def _asked(materials: Materials) -> dict[str, Json]:
    """What a person decided: the recipe, the command, and that the licences are acceptable."""
    accepted: list[Json] = [*_accepted(materials)]
    return {
        "command": list(materials.command),
        "recipe": _recipe(materials.recipe, materials.lock.source),
        **({"accepted": accepted} if accepted else {}),
    }


def _accepted(materials: Materials) -> Iterator[Json]:
    if materials.accepted_by is None:
        return
    lock = materials.lock
    for source, licence, gated in (
        (lock.source, lock.licence, lock.gated),
        *((adapter.source, adapter.licence, adapter.gated) for adapter in lock.adapters),
    ):
        name = source.repository if isinstance(source, HubCommit) else source.path
        when = materials.bundle.created
        yield Acceptance(materials.accepted_by, when, name, licence, gated).encode()


def _recipe(recipe: Recipe, source: HubCommit | Folder) -> Json:
    """The recipe, member by member; ``digest`` is that of the file. Of a path that is absolute
    only the name is told: where a person keeps files is nobody else's business.
    """
    document = _plain(recipe)
    if isinstance(document, dict) and isinstance(source, Folder):
        document["source"] = {"path": source.path}
    return document


def _plain(value: object, key: str = "") -> Json:
    if isinstance(value, Digest):
        return value.hex
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str) and key in _PATHS:
        return PurePosixPath(value).name if value.startswith("/") else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a recipe holds no {type(value).__name__}")


def _made(materials: Materials, variant: Variant) -> Json:
    making = materials.makings[variant.name]
    asked = next(asked for asked in materials.recipe.variants if asked.name == variant.name)
    return {
        "name": variant.name,
        "format": variant.format,
        "type": variant.type,
        "step": _STEPS[variant.format] if asked.file is None else "carried as published",
        "matrix": {"sha256": making.matrix.hex} if making.matrix else None,
        "fallbacks": len(making.fallbacks),
        "named": [fallback.encode() for fallback in making.fallbacks[:FALLBACKS_NAMED]],
        "rendered": _shown(making.rendered),
        "base": variant.base.variant if variant.base else None,
    }


def _shown(text: str | None) -> str | None:
    """The beginning of ``text``, with what is no Unicode in it escaped; nothing of an empty one."""
    beginning = (text or "")[:RENDERED_CHARACTERS].encode("utf-8", "backslashreplace")
    return beginning.decode("utf-8") or None


_STEPS = {
    GGUF: "converted",
    COMPRESSED_TENSORS: "quantized",
    SAFETENSORS: "carried as published",
    LORA: "converted",
}


def _sources(materials: Materials) -> Iterator[Json]:
    lock = materials.lock
    yield from _source(lock.source, lock.revision, lock.files)
    if lock.signature:
        file = lock.signature.file
        yield {"name": _plain(file.path, "path"), "digest": _content(file)}
    for adapter in lock.adapters:
        yield from _source(adapter.source, None, adapter.files)
    for text in lock.texts:
        yield {"name": _plain(text.path, "path"), "digest": _content(text)}


def _source(
    source: HubCommit | Folder, folder_revision: str | None, files: Iterable[LockedFile]
) -> Iterator[Json]:
    if isinstance(source, HubCommit):
        yield {"uri": package_url(source), "digest": {"gitCommit": source.revision}}
        for file in files:
            yield {"uri": package_url(source, file.path), "digest": _content(file)}
        return
    if folder_revision:
        yield {"name": source.path, "digest": {"sha256": folder_revision}}
    for file in files:
        yield {"name": f"{source.path}/{file.path}", "digest": _content(file)}


def _content(file: LockedFile) -> Json:
    """The id by which the file was fetched, under the name that in-toto has for its kind."""
    kind = "gitBlob" if file.content.kind == GIT_BLOB else "sha256"
    return {kind: file.content.hex}


def _setup(materials: Materials) -> Iterator[Json]:
    for part in materials.parts:
        known: dict[str, Json] = {"name": part.name, "digest": {"sha256": part.digest.hex}}
        url = part.package.url if part.package else None
        yield known | ({"uri": url} if url else {})


def _invocation(materials: Materials) -> uuid.UUID:
    """One for the same things asked at the same moment."""
    bundle = materials.bundle
    marks = (bundle.created, materials.recipe.digest.hex, bundle.lock.hex, *materials.command)
    return uuid.uuid5(uuid.NAMESPACE_OID, " ".join(marks))
