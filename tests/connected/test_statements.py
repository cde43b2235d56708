"""What a built bundle says of itself to others, and who answers for the licence."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.hub_server import HubServer
from support.tiny_source import RECIPE, tiny_source
from support.workplace import Workplace

from packager.connected.build import build, check_request
from packager.connected.evidence.licence import check_accepted
from packager.connected.lock import lock_recipe, read_lock
from packager.errors import PolicyError, UsageError
from packager.format.lock import Lock
from packager.format.sums import parse_sums
from packager.progress import Silent

GUIDE = Path(__file__).parents[2] / "docs" / "EVIDENCE.md"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with a gated repository, to whose files this account has access."""
    with HubServer({"org/tiny": tiny_source()}, token="hf_secret") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        server.gated.add("org/tiny")
        server.granted.add("org/tiny")
        yield server


@pytest.fixture
def gated(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    lock_recipe(tmp_path / "tiny.yaml", Silent())
    return read_lock(tmp_path / "tiny.yaml")


def airpack(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packager", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read(bundle: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / name).read_bytes())
    return document


def components(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [document["metadata"]["component"], *document["components"]]
    while waiting:
        component = waiting.pop()
        yield component
        waiting += component.get("components", [])


def test_the_sbom_is_valid_and_has_the_digest_of_all_that_travels(built: Path) -> None:
    text = (built / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None

    sbom = json.loads(text)
    hashes = {h["content"] for c in components(sbom) for h in c.get("hashes", ())}
    index = read(built, "bundle.json")
    assert hashes == {file["digest"] for file in index["files"]}
    packages = {c["name"]: c for c in sbom["components"] if c["type"] != "file"}
    wheels = {path.name.split("-")[0] for path in built.glob("*.whl")}
    assert packages.keys() == wheels | {"libgomp"}
    assert all(package["licenses"] for package in packages.values())
    texts = {name: list(_texts(package)) for name, package in packages.items()}
    assert texts["libgomp"] == ["LICENSE.libgomp.txt"]
    assert "LICENSE.engine.txt" in texts["xllamacpp"]
    assert not any("none" in found for found in texts.values())


def _texts(package: Mapping[str, Any]) -> Iterator[str]:
    for entry in package["properties"]:
        if entry["name"] == "airpack:licence-text":
            yield entry["value"]


def test_the_provenance_is_about_the_files_as_the_sums_have_them(built: Path) -> None:
    statement = read(built, "provenance.json")

    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    sums = parse_sums((built / "SHA256SUMS").read_bytes())
    files = {file["path"]: file["digest"] for file in read(built, "bundle.json")["files"]}
    models = {path: digest for path, digest in files.items() if path.startswith("models/")}
    beside = {name: sums[name].hex for name in ("bundle.json", "lock.json", "sbom.cdx.json")}
    assert subjects == models | beside
    assert "provenance.json" in sums
    assert b"/home/" not in (built / "provenance.json").read_bytes()


def test_stock_openssl_checks_the_envelope_as_the_guide_says(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    commands = re.search(r"```sh\n(E=provenance.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert commands
    script = commands[1].replace("/tmp/", f"{tmp_path}/").replace("python3", sys.executable)
    script = script.replace("KEY-ID", workplace.key.public.key_id)
    script = script.replace("KEY.pub", str(workplace.recipe.with_name("team.key.pub")))

    done = subprocess.run(["sh", "-ec", script], cwd=built, capture_output=True, text=True)

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["Verified OK"]), done.stderr
    envelope = read(built, f"provenance.{workplace.key.public.key_id}.dsse.json")
    assert base64.b64decode(envelope["payload"]) == (built / "provenance.json").read_bytes()


def test_96_a_gated_model_is_not_built_before_somebody_answers_for_its_licence(
    gated: Lock,
) -> None:
    assert gated.gated

    with pytest.raises(PolicyError, match=r"org/tiny: gated; somebody has to accept") as caught:
        check_accepted(gated, None)

    assert caught.value.exit_code == 18
    assert "--accepted-by NAME" in str(caught.value.hint)
    check_accepted(gated, "Zoë, legal")


def test_96_the_build_command_refuses_it_before_anything_is_made(
    gated: Lock, tmp_path: Path
) -> None:
    words = ["build", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "out")]

    done = airpack(*words)

    assert done.returncode == 18
    assert "error: org/tiny: gated; somebody has to accept the licence" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_gated_needs_nobody(workplace: Workplace, tmp_path: Path) -> None:
    request = workplace.request(tmp_path)

    assert not request.lock.gated
    assert check_request(request) == tmp_path / "demo-1.0.0"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[2J", "x" * 201])
def test_what_is_no_name_is_refused(gated: Lock, name: str) -> None:
    with pytest.raises(UsageError, match="not a name in one line"):
        check_accepted(gated, name)


def test_who_accepted_what_and_when_travels_and_is_shown(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    request = replace(workplace.request(tmp_path), accepted_by="Zoë, legal")
    made = build(request, workplace.cache, Silent())

    [accepted] = json.loads(airpack("inspect", str(made), "--json").stdout)["accepted"]
    assert accepted == {
        "by": "Zoë, legal", "when": "2026-11-24T12:00:00Z", "source": "tiny-kjv",
        "licence": "cc0-1.0", "gated": False,
    }  # fmt: skip
    shown = airpack("inspect", str(made)).stdout
    assert "cc0-1.0 of tiny-kjv, by Zoë, legal, 2026-11-24T12:00:00Z" in shown
    assert "sbom.cdx.json, provenance.json" in shown
    assert "Zoë, legal" in (made / "sbom.cdx.json").read_text("utf-8")
