"""A delta from the command line: inventory, build --base, diff, and the end of the trip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.bundles import make_bundle
from support.hosts import make_host
from support.watching import Watching
from support.workplace import PYTHON, RECIPE, Workplace

from packager.connected.build import build
from packager.connected.delta import leave_out, leave_out_setup
from packager.connected.layout import Member
from packager.errors import UnsafeContentError, UsageError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.held import Setup, SetupFile
from packager.format.inventory import Inventory, InventoryFile, parse_inventory
from packager.isolated.inventory import read_base
from packager.progress import Silent

ONE = Digest.of(b"one")
SETUP_TEXTS = (
    "FORMAT.md", "LICENSE.engine.txt", "LICENSE.libgomp.txt", f"requirements-{PYTHON}.txt",
    "setup.sh",
)  # fmt: skip


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
    assert written["set_up_with"] == ["demo-1.0.0"]
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


TEXT = ("setup/setup.sh", b"#!/bin/sh")
WHEELS = (("setup/a-1-any.whl", b"a"), ("setup/libgomp.so.1", b"gomp"))


def setup_of(bundle: str, *contents: tuple[str, bytes]) -> Setup:
    return Setup(bundle, tuple(SetupFile(p, len(d), Digest.of(d)) for p, d in contents))


def test_airpack_stays_at_home_where_the_host_was_set_up_with_the_very_same() -> None:
    base = Inventory((), (), (setup_of("old-1", *WHEELS, ("setup/b-1-any.whl", b"b")),))
    found = leave_out_setup(members(WHEELS[0], TEXT, WHEELS[1]), base)
    assert [member.path for member in found.carried] == [TEXT[0]]
    assert found.set_up_with == setup_of("old-1", *WHEELS)


@pytest.mark.parametrize(
    "had",
    [
        (),
        (setup_of("old-1", WHEELS[0]),),
        (setup_of("old-1", WHEELS[0], ("setup/libgomp.so.1", b"gump")),),
        (setup_of("old-1", WHEELS[0], ("setup/libgomp.so.2", b"gomp")),),
        (setup_of("old-1", WHEELS[0]), setup_of("old-2", WHEELS[1])),
    ],
)
def test_if_one_wheel_differs_all_of_them_travel(had: tuple[Setup, ...]) -> None:
    some = members(*WHEELS, TEXT)
    found = leave_out_setup(some, Inventory((), (), had))
    assert (found.carried, found.set_up_with) == (tuple(some), None)
    assert leave_out_setup(some, None).carried == tuple(some)


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
    assert {f.path for f in index.files} == {f"setup/{name}" for name in SETUP_TEXTS}
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
    assert listed.split() == [f.path for f in index.files]
    assert f"{len(index.held)} files, " in trip.said
    assert "stay at home" in trip.said


def test_its_airpack_stays_at_home_and_the_index_names_the_bundle_that_brought_it(
    trip: Trip, built: Path
) -> None:
    whole = parse_bundle((built / "bundle.json").read_bytes()).setup
    assert whole is not None
    assert trip.index.set_up_with == whole
    assert whole.bundle == "demo-1.0.0"
    assert [p.name for p in trip.delta.iterdir() if p.suffix in (".whl", ".1")] == []
    assert {*SETUP_TEXTS} < {path.name for path in trip.delta.iterdir()}
    said = "MiB, stays at home too: the host was set up with the same by demo-1.0.0"
    assert said in trip.said
    size = sum(path.stat().st_size for path in trip.delta.iterdir())
    assert size < sum(path.stat().st_size for path in built.iterdir()) / 50
    (held,) = parse_inventory(trip.inventory.read_bytes()).set_up_with
    assert held == whole


def test_airpack_travels_with_a_delta_if_that_is_asked_for(
    trip: Trip, workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    request = replace(
        workplace.request(tmp_path / "out"), base=read_base(built).inventory, with_setup=True
    )
    made = build(request, workplace.cache, Silent())
    index = parse_bundle((made / "bundle.json").read_bytes())
    assert (index.set_up_with, index.held) == (None, trip.index.held)
    assert index.setup == trip.index.set_up_with
    assert {path.name for path in built.glob("*.whl")} == {path.name for path in made.glob("*.whl")}


def test_airpack_travels_again_after_a_host_without_the_same(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    base = read_base(built).inventory
    (setup,) = base.set_up_with
    other = replace(setup.files[0], digest=ONE)
    older = replace(base, set_up_with=(replace(setup, files=(other, *setup.files[1:])),))
    watching = Watching()
    made = build(
        replace(workplace.request(tmp_path / "out"), base=older), workplace.cache, watching
    )
    index = parse_bundle((made / "bundle.json").read_bytes())
    assert (index.set_up_with, index.setup) == (None, setup)
    assert any(note.startswith("airpack itself travels: ") for note in watching.notes)


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
    assert "THIS IS A DELTA: airpack itself is NOT on this medium." in text
    assert "take the medium of demo-1.0.0, and run the same" in text
    assert "--with-setup" in text
    assert "give ONLY PART of the model" in text
    assert "the weights are still yours" not in text
    assert max(map(len, text.splitlines())) <= 100
    whole = (built / "READ-ME-FIRST.txt").read_text("ascii")
    assert "DELTA" not in whole
    assert "ONLY PART" not in whole
    assert "with-setup" not in whole
    assert "needs Python only" in whole
    assert "needs Python only" not in text
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
    wheels = index.set_up_with
    assert wheels is not None
    held = [{"path": f.path, "size": f.size} for f in (*index.held, *wheels.files)]
    assert there["held"] == held
    assert there["held_size"] == sum(f.size for f in index.held) + wheels.size
    assert there["carried_size"] == sum(f.size for f in index.files)
    assert there["removed"] == []
    assert shell.ask("diff", built, trip.inventory) == there
    between = shell.ask("diff", built, trip.delta)
    assert (between["from"], between["to"]) == ("demo-1.0.0", "demo-2.0.0")
    assert between["held"] == held
    text = shell.run("diff", built, trip.delta).stdout
    assert text.startswith("NOT VERIFIED")
    assert "stay at home" in text.splitlines()[-1]
    assert not (tmp_path / "no-home").exists()


def test_diff_carries_airpack_unless_every_wheel_is_the_same(
    workplace: Workplace, tmp_path: Path
) -> None:
    make = partial(make_bundle, keys=[workplace.key])
    wheel, text = "setup/a-1-any.whl", "setup/setup.sh"
    texts = {"setup.sh": b"#!/bin/sh"}
    old = make(tmp_path / "a", setup={"a-1-any.whl": b"old", **texts})
    same = make(tmp_path / "b", version="2", setup={"a-1-any.whl": b"old", **texts})
    other = make(tmp_path / "c", version="2", setup={"a-1-any.whl": b"newer", **texts})
    without = make(
        tmp_path / "d", version="3", setup=texts, set_up_with=setup_of("tiny-1.0.0", *WHEELS)
    )

    def parted(a: Path, b: Path) -> tuple[list[str], list[str]]:
        """The paths of ``setup/`` that are carried, and those that are held."""
        found = Shell(tmp_path, tmp_path).ask("diff", a, b)
        paths = ([file["path"] for file in found[kind]] for kind in ("carried", "held"))
        carried, held = ([p for p in some if p.startswith("setup/")] for some in paths)
        return carried, held

    assert parted(old, same) == ([text], [wheel])
    assert parted(old, other) == ([wheel, text], [])
    assert parted(old, without) == ([text, *(path for path, _ in WHEELS)], [])
    assert parted(without, old) == ([wheel, text], [])


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
    request = replace(workplace.request(tmp_path / "out"), base=base, parity=1, with_setup=True)
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
    assert base.set_up_with == (trip.index.set_up_with,)


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
    assert written["set_up_with"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["held.json"]


def test_an_inventory_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, trip: Trip
) -> None:
    done = Shell(trip.home, tmp_path).run("inventory", "-o", tmp_path / "no" / "f", code=1)
    assert f"error: {tmp_path / 'no' / 'f'}" in done.stderr or "no" in done.stderr
    assert list(tmp_path.iterdir()) == []
