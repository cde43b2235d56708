"""The in-toto statement: what it is about, what it was made from, and what it does not tell."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from packager.errors import MalformedError
from packager.evidence.materials import Materials
from packager.evidence.provenance import make_provenance
from packager.format.digest import Digest
from packager.format.lock import Folder
from packager.format.statement import parse_acceptances

BESIDE = {"bundle.json": Digest.of(b"index")}


def predicate_of(materials: Materials) -> dict[str, Any]:
    statement = json.loads(make_provenance(materials, BESIDE))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate: dict[str, Any] = statement["predicate"]
    return predicate


def test_its_subjects_are_the_files_of_the_variants_and_the_documents(materials: Materials) -> None:
    subjects = json.loads(make_provenance(materials, BESIDE))["subject"]

    digests = {subject["name"]: subject["digest"]["sha256"] for subject in subjects}
    files = {file.path: file.digest.hex for file in materials.bundle.files}
    assert digests == {**files, "bundle.json": BESIDE["bundle.json"].hex}


def test_it_says_what_went_in_by_the_ids_it_was_fetched_by(materials: Materials) -> None:
    definition = predicate_of(materials)["buildDefinition"]

    commit = f"pkg:huggingface/org/tiny@{materials.lock.revision}"
    assert definition["resolvedDependencies"] == [
        {"uri": commit, "digest": {"gitCommit": materials.lock.revision}},
        {"uri": f"{commit}#README.md", "digest": {"gitBlob": "2e" * 20}},
        {"uri": f"{commit}#model.safetensors", "digest": {"sha256": "3d" * 32}},
        {"name": "quiet.txt", "digest": {"sha256": "4c" * 32}},
        {
            "name": "click-8.5.1-py3-none-any.whl",
            "uri": "pkg:pypi/click@8.5.1",
            "digest": {"sha256": Digest.of(b"click").hex},
        },
        {"name": "setup.sh", "digest": {"sha256": Digest.of(b"setup").hex}},
    ]
    [variant] = definition["internalParameters"]["variants"]
    assert variant["matrix"] == {"sha256": Digest.of(b"matrix").hex}
    assert (variant["step"], variant["fallbacks"]) == ("carried as published", 2)


def test_it_says_what_was_asked_for_and_with_which_tools(materials: Materials) -> None:
    predicate = predicate_of(materials)

    asked = predicate["buildDefinition"]["externalParameters"]
    assert asked["command"] == ["airpack", "build", "RECIPE"]
    assert asked["recipe"]["digest"] == materials.recipe.digest.hex
    assert asked["recipe"]["smoke"]["prompts"] == ["Où est la gare ?"]
    assert asked["recipe"]["source"] == {"repository": "org/tiny", "revision": "main"}
    builder = predicate["runDetails"]["builder"]
    assert builder["version"] == {"airpack": materials.bundle.airpack, "engine": "xllamacpp 1"}
    assert predicate["runDetails"]["metadata"]["startedOn"] == materials.bundle.created


def test_where_a_person_keeps_files_is_not_in_it(materials: Materials) -> None:
    recipe = replace(materials.recipe, signed_by="/home/somebody/publisher.pub")
    lock = replace(materials.lock, source=Folder("tiny"))

    data = make_provenance(replace(materials, recipe=recipe, lock=lock), BESIDE)

    assert b"/home" not in data
    asked = json.loads(data)["predicate"]["buildDefinition"]["externalParameters"]["recipe"]
    assert (asked["signed_by"], asked["source"]) == ("publisher.pub", {"path": "tiny"})


def test_the_same_things_asked_again_give_the_same_bytes(materials: Materials) -> None:
    other = replace(materials, command=(*materials.command, "--parity", "1"))

    assert make_provenance(materials, BESIDE) == make_provenance(replace(materials), BESIDE)
    ids = [
        predicate_of(each)["runDetails"]["metadata"]["invocationId"] for each in (materials, other)
    ]
    assert ids[0] != ids[1]


def test_who_accepted_what_and_when_is_read_back(materials: Materials) -> None:
    gated = replace(materials, lock=replace(materials.lock, gated=True), accepted_by="Zoë, legal")

    [acceptance] = parse_acceptances(make_provenance(gated, BESIDE))

    assert (acceptance.by, acceptance.when) == ("Zoë, legal", materials.bundle.created)
    assert (acceptance.source, acceptance.licence) == ("org/tiny", "apache-2.0")
    assert acceptance.gated
    assert parse_acceptances(make_provenance(materials, BESIDE)) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"in-toto.io/Statement/v1", b"in-toto.io/Statement/v9"),
        (b"slsa.dev/provenance/v1", b"slsa.dev/provenance/v9"),
        (b'"by":"Z"', b'"by":"\x1b"'),
        (b'"gated":false', b'"gated":0'),
        (b'"externalParameters"', b'"externalParameterz"'),
    ],
)
def test_what_is_no_provenance_of_ours_is_refused(
    materials: Materials, old: bytes, new: bytes
) -> None:
    data = make_provenance(replace(materials, accepted_by="Z"), BESIDE)
    assert old in data

    with pytest.raises(MalformedError, match=r"^provenance\.json"):
        parse_acceptances(data.replace(old, new))


def test_a_path_is_escaped_in_an_address(materials: Materials) -> None:
    file = replace(materials.lock.files[1], path="poids à part/model 1.safetensors")

    predicate = predicate_of(replace(materials, lock=replace(materials.lock, files=(file,))))

    addresses = [entry.get("uri") for entry in predicate["buildDefinition"]["resolvedDependencies"]]
    commit = f"pkg:huggingface/org/tiny@{materials.lock.revision}"
    assert f"{commit}#poids%20%C3%A0%20part/model%201.safetensors" in addresses
