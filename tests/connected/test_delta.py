"""A delta from the command line: inventory, build --base, diff, and the end of the trip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import make_bundle
from support.hosts import make_host
from support.workplace import RECIPE, Workplace

from packager.connected.build import build
from packager.connected.delta import leave_out
from packager.connected.layout import Member
from packager.errors import UnsafeContentError, UsageError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.inventory import Inventory, InventoryFile
from packager.isolated.inventory import read_base
from packager.progress import Silent

ONE = Digest.of(b"one")


@dataclass(frozen=True)
class Shell:
    """Runs ``airpack``, with a home and the session's cache."""

    home: Path
    cache: Path

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "packager", *map(str, words)],
            env={**os.environ, "AIRPACK_HOME": str(self.home), "AIRPACK_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def ask(self, *words: str | Path, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@dataclass(frozen=True)
class Trip:
    """What lies where after two releases: the inventory that came back, and the delta."""

    home: Path
    inventory: Path
    said: str
    delta: Path

    @property
    def index(self) -> Bundle:
        return parse_bundle((self.delta / "bundle.json").read_bytes())


@pytest.fixture(scope="session")
def trip(workplace: Workplace, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    """Release 1 installed; its inventory; release 2, other prompts, same weights, built on it."""
    place = tmp_path_factory.mktemp("trip")
    make_host(place / "home", workplace.key).install(built)
    for part in ("setup", "derived"):  # a cache of its own: others count what is in theirs
        shutil.copytree(workplace.cache.root / part, place / "cache" / part)
    shell = Shell(place / "home", place / "cache")
    written = shell.ask("inventory", "-o", place / "held.json")
    assert written["bundles"] == [{"name": "demo", "version": "1.0.0", "sequence": 1}]
    recipe = place / "demo.yaml"
    text = RECIPE.replace("version: 1.0.0", "version: 2.0.0\nsequence: 2")
    recipe.write_text(text.replace("In the beginning", "Blessed are"), encoding="utf-8")
    key = workplace.recipe.with_name("team.key")
    words: Sequence[str | Path] = ("build", recipe, "-o", place / "out", "--key", key)
    done = shell.run(*words, "--base", place / "held.json", "--json")
    delta = Path(json.loads(done.stdout)["path"])
    return Trip(place / "home", place / "held.json", done.stderr, delta)


def members(*contents: tuple[str, bytes]) -> list[Member]:
    return [Member(p, Path("/nowhere"), len(data), Digest.of(data)) for p, data in contents]


def test_what_the_base_holds_stays_at_home_by_digest_and_size() -> None:
    base = Inventory((InventoryFile(ONE, 3, "old-1"),), ())
    some = members(("a/model", b"one"), ("b/model", b"one"), ("a/readme", b"two"))
    found = leave_out(some, base)
    assert [(f.path, f.bundle) for f in found.held] == [("a/model", "old-1"), ("b/model", "old-1")]
    assert [member.path for member in found.carried] == ["a/readme"]
    assert found.held_size == 6
    lying = Inventory((InventoryFile(ONE, 4, "old-1"),), ())
    assert leave_out(some, lying).held == ()
    assert leave_out(some, None).carried == tuple(some)


def test_paths_are_refused_that_only_meet_across_the_two_kinds() -> None:
    base = Inventory((InventoryFile(ONE, 3, "old-1"),), ())
    with pytest.raises(UnsafeContentError, match="are the same on some hosts"):
        leave_out(members(("a/LICENSE", b"one"), ("a/license", b"two")), base)


def test_too_many_files_are_refused_before_anything_is_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("packager.connected.delta.MAX_FILES", 1)
    with pytest.raises(UsageError, match="2 files: a bundle holds at most 1"):
        leave_out(members(("a", b"one"), ("b", b"two")), None)


def test_a_later_release_of_the_same_weights_travels_without_them(trip: Trip, built: Path) -> None:
    index = trip.index
    assert [f.path for f in index.files if not f.path.startswith("setup/")] == []
    whole = parse_bundle((built / "bundle.json").read_bytes())
    held = {file.path for variant in index.variants for file in index.held_files(variant)}
    assert held == {f.path for variant in whole.variants for f in whole.variant_files(variant)}
    assert "models/demo/q4_k_m/demo-q4_k_m.gguf" in held
    assert {file.bundle for file in index.held} == {"demo-1.0.0"}
    assert index.base == Digest.of(trip.inventory.read_bytes())
    golden = index.variants[0].golden
    assert golden is not None
    assert golden.answers[0].prompt == "Blessed are"
    listed = subprocess.run(
        f"cat '{trip.delta}'/payload.* | tar -t -f -", shell=True, capture_output=True, check=True
    ).stdout.decode()
    assert "setup/setup.sh" in listed
    assert ".gguf" not in listed
    assert f"{len(index.held)} files, " in trip.said
    assert "stay at home" in trip.said


def test_the_delta_installs_where_release_1_is_and_its_smoke_test_passes(trip: Trip) -> None:
    shell = Shell(trip.home, trip.home)
    done = shell.ask("install", trip.delta)
    assert (done["version"], done["generation"], done["smoke"]["ok"]) == ("2.0.0", 2, True)
    assert shell.ask("smoke", "demo")["tokens_match"]
    sizes = [entry["size"] for entry in shell.ask("list")]
    assert sizes[0] == sizes[1]
    assert shell.ask("verify", trip.delta)["ok"]


def test_the_delta_is_refused_with_12_on_a_fresh_host_and_nothing_changes(
    trip: Trip, workplace: Workplace, tmp_path: Path
) -> None:
    host = make_host(tmp_path / "home", workplace.key)
    before = host.state()
    done = Shell(host.home.root, tmp_path).run("install", trip.delta, code=12)
    assert "error: demo-2.0.0 is a delta, and this host does not hold models/demo/" in done.stderr
    assert "carried by demo-1.0.0" in done.stderr
    assert "try: airpack install demo-1.0.0, then this again" in done.stderr
    assert host.state() == before


def test_a_store_blob_with_a_flipped_bit_is_named_before_it_is_used(
    trip: Trip, workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    host = make_host(tmp_path / "home", workplace.key)
    host.install(built)
    gguf = next(file for file in trip.index.held if file.path.endswith(".gguf"))
    path = host.home.blob(gguf.digest)
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(gguf.size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    before = host.state()
    done = Shell(host.home.root, tmp_path).run("install", trip.delta, code=10)
    fact = f"{path}: damaged on this host; demo-2.0.0 needs it for {gguf.path}"
    assert f"error: {fact}\n" in done.stderr
    assert host.state() == before
    assert host.current("demo") == 1


def test_the_read_me_of_a_delta_says_that_it_is_one(trip: Trip, built: Path) -> None:
    text = (trip.delta / "READ-ME-FIRST.txt").read_bytes().decode("ascii")
    assert f"THIS IS A DELTA: {len(trip.index.held)} file(s)" in text
    assert "\n    demo-1.0.0\n" in text
    assert "give ONLY PART of the model" in text
    assert "the weights are still yours" not in text
    assert max(map(len, text.splitlines())) <= 100
    whole = (built / "READ-ME-FIRST.txt").read_text("ascii")
    assert "DELTA" not in whole
    assert "ONLY PART" not in whole
    assert "the weights are still yours" in whole


def test_diff_foretells_what_the_delta_then_carried(
    trip: Trip, workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    shell = Shell(tmp_path / "no-home", tmp_path)
    there = shell.ask("diff", trip.inventory, built)
    index = trip.index
    assert there.keys() == {
        "ok", "verified", "from", "to", "carried", "held", "removed", "carried_size", "held_size",
    }  # fmt: skip
    assert there["verified"] is False
    assert (there["from"], there["to"]) == (str(trip.inventory), "demo-1.0.0")
    assert [f["path"] for f in there["carried"]] == [f.path for f in index.files]
    assert there["held_size"] == sum(f.size for f in index.held)
    assert there["removed"] == []
    assert shell.ask("diff", built, trip.inventory) == there
    between = shell.ask("diff", built, trip.delta)
    assert (between["from"], between["to"]) == ("demo-1.0.0", "demo-2.0.0")
    assert between["held"] == [{"path": f.path, "size": f.size} for f in index.held]
    text = shell.run("diff", built, trip.delta).stdout
    assert text.startswith("NOT VERIFIED")
    assert "stay at home" in text.splitlines()[-1]
    assert not (tmp_path / "no-home").exists()


def test_diff_of_two_bundles_names_what_is_new_and_what_is_gone(
    workplace: Workplace, tmp_path: Path
) -> None:
    old = make_bundle(
        tmp_path / "old", [workplace.key], files={"model": b"m" * 900, "gone": b"g", "same": b"s"}
    )
    new = make_bundle(
        tmp_path / "new", [workplace.key], version="2",
        files={"model": b"n" * 900, "renamed": b"s", "new": b"!!"},
    )  # fmt: skip
    found = Shell(tmp_path, tmp_path).ask("diff", old, new)
    place = "models/tiny/original/"
    assert found["carried"] == [
        {"path": f"{place}model", "size": 900},
        {"path": f"{place}new", "size": 2},
    ]
    assert found["held"] == [{"path": f"{place}renamed", "size": 1}]
    assert [f["path"] for f in found["removed"]] == [f"{place}gone", f"{place}same"]
    assert (found["carried_size"], found["held_size"]) == (902, 1)


def test_a_bundle_that_the_host_has_serves_as_the_base(
    trip: Trip, workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    base = read_base(built).inventory
    request = replace(workplace.request(tmp_path / "out"), base=base)
    made = build(request, workplace.cache, Silent())
    index = parse_bundle((made / "bundle.json").read_bytes())
    assert {file.path for file in index.held} == {file.path for file in trip.index.held}
    assert index.base == base.digest


def test_a_sequence_that_the_host_will_refuse_is_found_out_before_the_trip(
    trip: Trip, workplace: Workplace, tmp_path: Path
) -> None:
    shell = Shell(tmp_path / "home", workplace.cache.root)
    words = ("build", workplace.recipe, "-o", tmp_path / "out", "--base", trip.inventory)
    done = shell.run(*words, "--dry-run")
    assert (
        "warning: the base has sequence 1 of demo: its host will refuse sequence 1; raise it "
        "in the recipe\n"
    ) in done.stderr
    assert "warning" not in trip.said


def test_a_delta_has_parity_in_proportion_to_what_it_carries(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    base = read_base(built).inventory
    request = replace(workplace.request(tmp_path / "out"), base=base, parity=1)
    made = build(request, workplace.cache, Silent())
    index = parse_bundle((made / "bundle.json").read_bytes())
    assert len(index.parity) == 1
    assert index.parity[0].size < index.payload.size / 10
    (made / "payload.00002").unlink()
    host = make_host(tmp_path / "home", workplace.key)
    host.install(built)
    host.install(made, allow_downgrade=True)
    assert host.current("demo") == 2


def test_a_delta_serves_as_the_base_of_the_next_and_names_who_carried_it(trip: Trip) -> None:
    base = read_base(trip.delta).inventory
    assert {file.bundle for file in base.files} == {"demo-1.0.0"}


@pytest.mark.parametrize(
    ("content", "code", "fact"),
    [
        (None, 2, "there is no such inventory, nor bundle"),
        (b"name: demo\n", 10, "not valid JSON"),
        (b'{"format":"airpack-bundle"}', 10, "format: not airpack-inventory"),
    ],
)
def test_a_base_that_is_none_is_refused_before_anything_is_made(
    workplace: Workplace, tmp_path: Path, content: bytes | None, code: int, fact: str
) -> None:
    base = tmp_path / "base"
    if content is not None:
        base.write_bytes(content)
    shell = Shell(tmp_path / "home", tmp_path / "cache")
    words = ("build", workplace.recipe, "-o", tmp_path / "out", "--base", base)
    done = shell.run(*words, code=code)
    assert f"error: {base}: " in done.stderr
    assert fact in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_two_inventories_have_no_difference_in_files(trip: Trip, tmp_path: Path) -> None:
    done = Shell(tmp_path, tmp_path).run("diff", trip.inventory, trip.inventory, code=2)
    assert "both are inventories" in done.stderr


def test_an_inventory_of_nothing_makes_a_whole_bundle(tmp_path: Path, built: Path) -> None:
    shell = Shell(tmp_path / "home", tmp_path)
    written = shell.ask("inventory", "-o", tmp_path / "held.json")
    assert (written["files"], written["size"], written["bundles"]) == (0, 0, [])
    found = shell.ask("diff", tmp_path / "held.json", built)
    assert found["held"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["held.json"]


def test_an_inventory_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, trip: Trip
) -> None:
    done = Shell(trip.home, tmp_path).run("inventory", "-o", tmp_path / "no" / "f", code=1)
    assert f"error: {tmp_path / 'no' / 'f'}" in done.stderr or "no" in done.stderr
    assert list(tmp_path.iterdir()) == []
