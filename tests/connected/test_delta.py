"""A delta from the command line: inventory, build --base, and the end of the trip."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.builds import index_of
from support.deltas import Shell, Trip
from support.hosts import make_host
from support.watching import Watching
from support.workplace import PYTHON, Workplace

from packager.connected.build import build
from packager.format.digest import Digest
from packager.format.inventory import parse_inventory
from packager.isolated.inventory import read_base
from packager.progress import Silent

ONE = Digest.of(b"one")
SETUP_TEXTS = (
    "FORMAT.md", "LICENSE.engine.txt", "LICENSE.libgomp.txt", f"requirements-{PYTHON}.txt",
    "setup.sh",
)  # fmt: skip


def test_a_later_release_of_the_same_weights_travels_without_them(trip: Trip, built: Path) -> None:
    index = trip.index
    assert {f.path for f in index.files} == {f"setup/{name}" for name in SETUP_TEXTS}
    whole = index_of(built)
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
    whole = index_of(built).setup
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
    index = index_of(made)
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
    index = index_of(made)
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


def test_a_bundle_that_the_host_has_serves_as_the_base(
    trip: Trip, workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    base = read_base(built).inventory
    request = replace(workplace.request(tmp_path / "out"), base=base)
    made = build(request, workplace.cache, Silent())
    index = index_of(made)
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
    index = index_of(made)
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
    assert f"error: {tmp_path / 'no'}" in done.stderr
    assert "no such file or directory" in done.stderr
    assert list(tmp_path.iterdir()) == []
