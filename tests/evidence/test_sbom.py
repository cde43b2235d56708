"""The ML-BOM, by the official schema, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from packager.evidence.materials import Materials, Package, Part
from packager.evidence.sbom import make_sbom
from packager.format.adapter import AdapterBase
from packager.format.digest import Digest
from packager.format.held import HeldFile
from packager.format.lock import Folder, LockedAdapter
from packager.format.quality import Quality

# Ids as the hub has them, with and without an SPDX counterpart, and what wheels state.
LICENCES = (
    None, "apache-2.0", "mit", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "bsl-1.0", "bsd", "cc", "cc0-1.0",
    "cc-by-nc-sa-4.0", "openrail++", "bigscience-bloom-rail-1.0", "llama3.1", "gemma", "other",
    "Apache-2.0 OR MIT", "Apache-2.0+", "LicenseRef-Own", 'Ours, "all" rights',
)  # fmt: skip
QUALITY = Quality(
    Digest.of(b"text"), "BF16", 4080, 3_450_000, 3_400_000, 1_000, 50_000_000, 1_000_000, 842_200
)


def valid(data: bytes) -> dict[str, Any]:
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode("utf-8"))
    assert fault is None
    document: dict[str, Any] = json.loads(data)
    return document


def components(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [document["metadata"]["component"], *document["components"]]
    while waiting:
        component = waiting.pop()
        yield component
        waiting += component.get("components", [])


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in component["properties"]}


def test_it_names_the_model_its_commit_and_each_file_that_travels(materials: Materials) -> None:
    document = valid(make_sbom(materials))

    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    [ancestor] = model["pedigree"]["ancestors"]
    assert ancestor["purl"] == f"pkg:huggingface/org/tiny@{materials.lock.revision}"
    assert model["licenses"] == [{"license": {"acknowledgement": "declared", "id": "Apache-2.0"}}]
    assert model["evidence"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    hashes = {c["name"]: c["hashes"][0]["content"] for c in components(document) if "hashes" in c}
    assert {f.path: f.digest.hex for f in materials.bundle.files}.items() <= hashes.items()
    [click] = [c for c in components(document) if c["name"] == "click"]
    assert (click["purl"], click["version"]) == ("pkg:pypi/click@8.5.1", "8.5.1")
    assert properties(click)["airpack:licence-text"] == "c/licenses/L"


def test_the_same_bundle_gives_the_same_bytes_and_another_another_serial(
    materials: Materials,
) -> None:
    later = replace(materials, bundle=replace(materials.bundle, created="2026-11-25T00:00:00Z"))

    assert make_sbom(materials) == make_sbom(replace(materials))
    first, second = (valid(make_sbom(each)) for each in (materials, later))
    assert first["serialNumber"] != second["serialNumber"]
    assert second["metadata"]["timestamp"] == "2026-11-25T00:00:00Z"


@pytest.mark.parametrize("licence", LICENCES)
def test_any_licence_makes_a_valid_document(materials: Materials, licence: str | None) -> None:
    origin = replace(materials.bundle.origin, licence=licence)
    package = Package("other", "1", licence, (), None)
    changed = replace(
        materials,
        bundle=replace(materials.bundle, origin=origin),
        parts=(Part("other-1-py3-none-any.whl", Digest.of(b"x"), package),),
        texts={"LICENSE": frozenset({"mit", "llama3.1"})},
    )

    document = valid(make_sbom(changed))

    [part] = document["components"]
    assert properties(part)["airpack:licence-text"] == "none"
    assert bool(part["licenses"]) == bool(licence)


def test_a_folder_an_adapter_a_held_file_and_a_measured_variant_are_valid_too(
    materials: Materials,
) -> None:
    original = replace(materials.bundle.variants[0], quality=QUALITY)
    adapter = replace(
        original,
        name="lora",
        format="lora",
        directory="models/tiny/lora",
        quality=None,
        base=AdapterBase("original", Digest.of(b"base")),
    )
    bundle = replace(
        materials.bundle,
        variants=(original, adapter),
        held=(HeldFile("models/tiny/lora/a.gguf", 5, Digest.of(b"a"), "tiny-0.9"),),
    )
    lock = replace(
        materials.lock,
        source=Folder("tiny"),
        adapters=(LockedAdapter("lora", Folder("adapter"), "mit", ()),),
    )
    makings = {**materials.makings, "lora": materials.makings["original"]}
    changed = replace(materials, bundle=bundle, lock=lock, makings=makings, architecture=None)

    document = valid(make_sbom(changed))

    found = {component["name"]: component for component in components(document)}
    metrics = found["tiny/original"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[0] == {
        "type": "perplexity", "value": "31.5004", "slice": "4080 tokens, this variant"
    }  # fmt: skip
    assert found["tiny/lora"]["licenses"][0]["license"]["id"] == "MIT"
    assert properties(found["models/tiny/lora/a.gguf"]) == {"airpack:carried-by": "tiny-0.9"}
    assert document["dependencies"][1]["dependsOn"] == ["variant:original"]
    references = [component["bom-ref"] for component in components(document)]
    assert len(references) == len(set(references))


def test_who_accepted_the_licence_is_in_it(materials: Materials) -> None:
    document = valid(make_sbom(replace(materials, accepted_by="Zoë, legal")))

    accepted = properties(document["metadata"]["component"])["airpack:licences-accepted-by"]
    assert accepted == f"Zoë, legal, {materials.bundle.created}"
