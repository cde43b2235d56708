"""New prompts for a model that is there: neither its weights nor airpack cross the gap again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from end_to_end.conftest import Carried, Host, bare_environment, build
from support.bundles import flip_bit
from support.sandbox import no_network

LATER = '"Blessed are", "And"'


@pytest.fixture(scope="module")
def inventory(
    carried: Carried, airpack_from_the_medium: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a host says of itself that was set up with the first release, and has installed it."""
    folder = tmp_path_factory.mktemp("held")
    host = Host((str(airpack_from_the_medium),), bare_environment(folder), folder, no_network())
    host.say("install", carried.medium, "--pub", carried.key, "--no-smoke")
    assert host.ask("inventory", "-o", "held.json")["set_up_with"] == ["tiny-kjv-1.0.0"]
    return folder / "held.json"


@pytest.fixture(scope="module")
def delta(connected: Host, inventory: Path) -> Carried:
    return build(connected, "--base", inventory, version="1.2.0", sequence=2, prompts=LATER)


@pytest.fixture
def medium(delta: Carried, tmp_path: Path) -> Path:
    """A copy of the delta that may be damaged."""
    return shutil.copytree(delta.medium, tmp_path / "medium")


@pytest.fixture
def bare(medium: Path, tmp_path: Path) -> Host:
    """A host without a network and without airpack, at the delta."""
    return Host((), bare_environment(tmp_path), medium, no_network())


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def test_it_is_a_fraction_of_the_first_release_and_becomes_current(
    carried: Carried, delta: Carried, isolated: Host
) -> None:
    assert size(delta.medium) < 1 << 20 < size(carried.medium) / 20
    isolated.say("trust", "add", carried.key)
    isolated.say("install", carried.medium)
    assert isolated.ask("verify", delta.medium)["ok"]

    installed = isolated.ask("install", delta.medium)

    assert (installed["version"], installed["smoke"]["ok"]) == ("1.2.0", True)
    golden = delta.index.variants[0].golden
    assert golden is not None
    assert [answer.prompt for answer in golden.answers] == ["Blessed are", "And"]
    answer = isolated.say("run", "tiny-kjv", "Blessed are", "--max-tokens", "16")
    assert answer.removesuffix("\n") == golden.answers[0].text


def test_its_setup_finds_what_the_host_was_set_up_with_and_changes_nothing(
    bare: Host, airpack_from_the_medium: Path, medium: Path
) -> None:
    target = airpack_from_the_medium.parents[1]
    before = {path: path.lstat().st_mtime_ns for path in target.rglob("*")}
    said = bare.run("sh", "setup.sh", target).stdout
    assert "is ready. Next" in said
    assert f"{airpack_from_the_medium} install {medium}" in said
    assert {path: path.lstat().st_mtime_ns for path in target.rglob("*")} == before


def test_its_setup_names_the_bundle_that_brings_airpack_to_a_host_without(
    bare: Host, carried: Carried, medium: Path, tmp_path: Path
) -> None:
    target = tmp_path / "airpack"
    said = bare.run("sh", "setup.sh", target, code=1).stderr
    assert said == (
        "error: this bundle is a delta without airpack, for a host that was set up with "
        f"tiny-kjv-1.0.0; {target} was not\n"
        f"try: sh setup.sh {target}, in the directory of tiny-kjv-1.0.0, then "
        f"{target}/bin/airpack install {medium}; or ask for this bundle built --with-setup\n"
    )
    assert not target.exists()
    bare.run("sh", carried.medium / "setup.sh", target)
    assert "is ready" in bare.run("sh", "setup.sh", target).stdout
    airpack = target / "bin" / "airpack"
    refused = bare.run(airpack, "install", medium, "--pub", carried.key, code=12).stderr
    assert "carried by tiny-kjv-1.0.0" in refused


def test_its_setup_is_not_content_with_an_airpack_from_other_wheels(
    bare: Host, airpack_from_the_medium: Path, tmp_path: Path
) -> None:
    target = tmp_path / "airpack"
    shutil.copytree(airpack_from_the_medium.parents[1], target, symlinks=True)
    flip_bit(target / "lib" / "airpack" / "requirements.txt", -2)
    assert f"{target} was not" in bare.run("sh", "setup.sh", target, code=1).stderr


def test_its_setup_without_an_index_leaves_the_name_to_the_read_me(
    bare: Host, medium: Path, tmp_path: Path
) -> None:
    for name in ("bundle.json", "spare.bundle.json"):
        flip_bit(medium / name, 100)
    said = bare.run("sh", "setup.sh", tmp_path / "airpack", code=1).stderr
    assert "set up with the earlier bundle that READ-ME-FIRST.txt names;" in said
    assert "    tiny-kjv-1.0.0\n" in (medium / "READ-ME-FIRST.txt").read_text("ascii")


def test_what_it_brings_is_repaired_and_what_it_does_not_bring_is_not_missed(
    isolated: Host, carried: Carried, medium: Path
) -> None:
    flip_bit(medium / "FORMAT.md", 100)
    (medium / "setup.sh").unlink()
    isolated.say("verify", medium, "--pub", carried.key, code=10)
    isolated.say("repair", medium, "--in-place", "--pub", carried.key)
    found = isolated.ask("verify", medium, "--pub", carried.key)
    assert (found["ok"], found["damage"]) == (True, [])
    assert list(medium.glob("*.whl")) == []


def test_a_record_of_another_setup_makes_airpack_travel_again(
    connected: Host, carried: Carried, airpack_from_the_medium: Path, tmp_path: Path
) -> None:
    shutil.copytree(airpack_from_the_medium.parents[1], tmp_path / "env", symlinks=True)
    flip_bit(tmp_path / "env" / "lib" / "airpack" / "requirements.txt", -2)
    python = str(tmp_path / "env" / "bin" / "python")
    start = "import sys; del sys.argv[0]; from packager.cli.main import main; main()"
    words = (python, "-I", "-c", start, "airpack")
    host = Host(words, bare_environment(tmp_path), tmp_path, no_network())
    host.say("install", carried.medium, "--pub", carried.key, "--no-smoke")
    assert host.ask("inventory", "-o", "held.json")["set_up_with"] == []
    base = tmp_path / "held.json"
    whole = build(connected, "--base", base, version="1.3.0", sequence=3, prompts=LATER)
    assert whole.index.set_up_with is None
    assert whole.index.held
    bare = Host((), bare_environment(tmp_path), whole.medium, no_network())
    bare.run("sh", "setup.sh", tmp_path / "anew")
    bare.run(tmp_path / "anew" / "bin" / "airpack", "--version")


def test_with_setup_it_sets_up_a_bare_host(
    connected: Host, inventory: Path, tmp_path: Path
) -> None:
    words = ("--base", inventory, "--with-setup")
    carries = build(connected, *words, version="1.4.0", sequence=4, prompts=LATER)
    bare = Host((), bare_environment(tmp_path), carries.medium, no_network())
    bare.run("sh", "setup.sh", tmp_path / "airpack")
    assert carries.index.held
    assert "needs Python only" in (carries.medium / "READ-ME-FIRST.txt").read_text("ascii")
