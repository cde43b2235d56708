"""``sbom.cdx.json``: what is in a bundle, as a CycloneDX 1.6 ML-BOM (ECMA-424, JSON).

Source: ``schema/bom-1.6.schema.json`` of github.com/CycloneDX/specification. The same bundle gives
the same bytes: the serial number is made from its files, and the time is that of the index.
"""

from __future__ import annotations

import uuid

from packager.evidence import spdx
from packager.evidence.materials import Materials, Package, Part, package_url
from packager.format import canonical
from packager.format.bundle import Bundle, VariantFile
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.held import HeldFile
from packager.format.lock import Folder, HubCommit
from packager.format.quality import Quality
from packager.format.variant import Variant

_MODEL = "machine-learning-model"
_OWN = "airpack"


def make_sbom(materials: Materials) -> bytes:
    """The ML-BOM of a bundle, as canonical JSON."""
    bundle = materials.bundle
    return canonical.encode(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{_serial(bundle)}",
            "version": 1,
            "metadata": {
                "timestamp": bundle.created,
                "tools": {"components": [_tool(bundle)]},
                "component": _model(materials),
            },
            "components": [_part(part) for part in materials.parts],
            "dependencies": [_dependency(bundle, variant) for variant in bundle.variants],
        }
    )


def _serial(bundle: Bundle) -> uuid.UUID:
    """One for this very bundle: what it is called, when it was built, and all that is in it."""
    carried = (file.digest.hex for file in bundle.files)
    held = (file.digest.hex for file in bundle.held)
    marks = (bundle.title, bundle.created, bundle.lock.hex, *carried, *held)
    return uuid.uuid5(uuid.NAMESPACE_OID, " ".join(marks))


def _tool(bundle: Bundle) -> Json:
    return {"type": "application", "name": _OWN, "version": bundle.airpack}


def _model(materials: Materials) -> Json:
    bundle = materials.bundle
    properties = [("airpack:sequence", str(bundle.sequence)), ("airpack:engine", bundle.engine)]
    properties += [("airpack:licence-text", path) for path in materials.texts or ("none",)]
    if materials.accepted_by:
        accepted = f"{materials.accepted_by}, {bundle.created}"
        properties.append(("airpack:licences-accepted-by", accepted))
    component: dict[str, Json] = {
        "type": _MODEL,
        "bom-ref": "model",
        "name": bundle.name,
        "version": bundle.version,
        "licenses": spdx.declared(bundle.origin.licence),
        "pedigree": {"ancestors": [_ancestor(materials.lock.source, bundle.origin.revision)]},
        "components": [_variant(materials, variant) for variant in bundle.variants],
        "properties": _properties(*properties),
    }
    if licences := frozenset[str]().union(*materials.texts.values()):
        component["evidence"] = {"licenses": spdx.found(licences)}
    if parameters := _architecture(materials):
        component["modelCard"] = {"modelParameters": parameters}
    return component


def _architecture(materials: Materials) -> dict[str, Json]:
    known = {
        "architectureFamily": materials.family,
        "modelArchitecture": materials.architecture,
    }
    return {key: value for key, value in known.items() if value is not None}


def _ancestor(source: HubCommit | Folder, folder_revision: str | None = None) -> Json:
    if isinstance(source, HubCommit):
        return {
            "type": _MODEL,
            "name": source.repository,
            "version": source.revision,
            "purl": package_url(source),
        }
    version: dict[str, Json] = {"version": folder_revision} if folder_revision else {}
    return {"type": _MODEL, "name": source.path, **version}


def _variant(materials: Materials, variant: Variant) -> Json:
    bundle, making = materials.bundle, materials.makings[variant.name]
    properties = [("airpack:format", variant.format), ("airpack:type", variant.type)]
    if making.matrix:
        properties.append(("airpack:importance-matrix", f"sha256:{making.matrix.hex}"))
    component: dict[str, Json] = {
        "type": _MODEL,
        "bom-ref": _reference(variant.name),
        "name": f"{bundle.name}/{variant.name}",
        "version": bundle.version,
        "components": [_file(file) for file in bundle.variant_files(variant)],
        "properties": _properties(*properties),
    }
    if variant.base:
        adapter = materials.lock.adapter(variant.name)
        component["licenses"] = spdx.declared(adapter.licence)
        component["pedigree"] = {"ancestors": [_ancestor(adapter.source)]}
    if variant.quality:
        component["modelCard"] = {"quantitativeAnalysis": _analysis(variant.quality)}
    return component


def _analysis(quality: Quality) -> Json:
    """What was measured, beside the original on the same tokens."""
    values = {
        "perplexity": (quality.perplexity, "this variant"),
        "perplexity of the original": (quality.original_perplexity, quality.baseline),
    }
    return {
        "performanceMetrics": [
            {"type": kind, "value": f"{value:.6g}", "slice": f"{quality.tokens} tokens, {what}"}
            for kind, (value, what) in values.items()
        ]
    }


def _file(file: VariantFile) -> Json:
    component: dict[str, Json] = {
        "type": "file",
        "bom-ref": f"file:{file.path}",
        "name": file.path,
        "hashes": _hashes(file.digest),
    }
    if isinstance(file, HeldFile):
        component["properties"] = _properties(("airpack:carried-by", file.bundle))
    return component


def _part(part: Part) -> Json:
    properties = [("airpack:carried-by", part.bundle)] if part.bundle else []
    component: dict[str, Json] = {
        "bom-ref": f"setup:{part.name}",
        "hashes": _hashes(part.digest),
    }
    if part.package is None:
        component |= {"type": "file", "name": part.name}
    else:
        component |= _package(part.package)
        properties.append(("airpack:file", part.name))
        properties += [("airpack:licence-text", t) for t in part.package.texts or ("none",)]
    if properties:
        component["properties"] = _properties(*properties)
    return component


def _package(package: Package) -> dict[str, Json]:
    known = {"version": package.version, "purl": package.url}
    return {
        "type": "application" if package.name == _OWN else "library",
        "name": package.name,
        "licenses": spdx.declared(package.licence),
        **{key: value for key, value in known.items() if value is not None},
    }


def _dependency(bundle: Bundle, variant: Variant) -> Json:
    base = bundle.base_of(variant)
    on: list[Json] = [_reference(base.name)] if base else []
    return {"ref": _reference(variant.name), "dependsOn": on}


def _reference(variant: str) -> str:
    return f"variant:{variant}"


def _hashes(digest: Digest) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest.hex}]


def _properties(*pairs: tuple[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in pairs]
