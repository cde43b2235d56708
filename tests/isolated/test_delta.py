"""Bundles that leave out what the host holds, on hosts that do and hosts that do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import EngineVariant, flip_bit, make_bundle
from support.hosts import NOW, Host
from support.tiny_source import weights
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError, MissingVolumeError, SmokeTestError
from packager.format.digest import Digest
from packager.format.inventory import Inventory, encode_inventory, parse_inventory
from packager.isolated.inventory import read_base, take_inventory
from packager.isolated.lifecycle import free_space, smoke, uninstall
from packager.progress import Silent
from packager.store.generations import find_generation

WEIGHTS = weights(bytes(range(256)) * 1024)
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}\n"}
LATER = {"model.safetensors": WEIGHTS, "config.json": b'{"prompt": "other"}\n'}
HELD = {"model.safetensors": "tiny-1.0.0"}
PATH = "models/tiny/original/model.safetensors"


@pytest.fixture
def first(tmp_path: Path, key: SigningKey) -> Path:
    return make_bundle(tmp_path / "first", [key], files=FILES)


@pytest.fixture
def delta(tmp_path: Path, key: SigningKey) -> Path:
    """The second release, without the weights."""
    return make_bundle(
        tmp_path / "delta", [key], version="2.0.0", sequence=2, files=LATER, held=HELD
    )


def blob(host: Host, data: bytes = WEIGHTS) -> Path:
    return host.home.blob(Digest.of(data))


def damage(path: Path) -> None:
    path.chmod(0o644)
    flip_bit(path, len(WEIGHTS) // 2)


def test_a_delta_takes_from_the_store_what_it_does_not_carry(
    host: Host, first: Path, delta: Path
) -> None:
    host.install(first)
    assert sum(p.stat().st_size for p in delta.glob("payload.*")) < len(WEIGHTS) // 10
    done = host.install(delta)
    assert host.current() == 2
    for name, data in LATER.items():
        assert (done.path / "original" / name).read_bytes() == data
    assert (done.path / "original" / "model.safetensors").samefile(blob(host))
    assert find_generation(host.home, "tiny").size == sum(map(len, LATER.values()))
    assert host.verify(delta).ok


def test_a_fresh_host_is_told_which_bundle_is_missing_and_nothing_changes(
    host: Host, first: Path, delta: Path
) -> None:
    before, watching = host.state(), Watching()
    with pytest.raises(MissingVolumeError) as caught:
        host.install(delta, progress=watching)
    error = caught.value
    assert error.exit_code == 12
    assert error.message == (
        f"tiny-2.0.0 is a delta, and this host does not hold {PATH}; carried by tiny-1.0.0"
    )
    assert str(error.hint).startswith("airpack install tiny-1.0.0, then this again")
    assert host.state() == before
    assert host.last_refusal() == error.message
    host.install(first)
    host.install(delta)
    assert host.current() == 2


def test_the_reading_of_what_is_held_is_told_byte_for_byte(
    host: Host, first: Path, delta: Path
) -> None:
    host.install(first)
    watching = Watching()
    host.install(delta, progress=watching)
    held = watching.tasks[0]
    assert (held.label, held.done, held.total) == ("checking what is held", *[len(WEIGHTS)] * 2)


def test_missing_files_are_noticed_before_a_volume_is_looked_for(host: Host, delta: Path) -> None:
    for volume in delta.glob("payload.*"):
        volume.unlink()
    with pytest.raises(MissingVolumeError, match=r"does not hold .*model\.safetensors"):
        host.install(delta)


def test_a_blob_with_a_flipped_bit_is_named_and_the_old_generation_stays(
    host: Host, first: Path, delta: Path
) -> None:
    host.install(first)
    damage(blob(host))
    before = host.state()
    with pytest.raises(IntegrityError) as caught:
        host.install(delta)
    assert caught.value.exit_code == 10
    assert caught.value.message.startswith(f"{blob(host)}: damaged on this host")
    assert PATH in caught.value.message
    assert host.state() == before
    assert host.current() == 1


def test_the_help_for_a_damaged_blob_helps(host: Host, first: Path, delta: Path) -> None:
    host.install(first)
    damage(blob(host))
    with pytest.raises(IntegrityError, match="damaged") as caught:
        host.install(delta)
    assert caught.value.hint == (
        "airpack uninstall tiny, airpack gc, then install tiny-1.0.0 again, and this bundle "
        "behind it"
    )
    uninstall(host.home, "tiny", None, now=NOW, operator="tester")
    free_space(host.home, now=NOW, operator="tester")
    host.install(first)
    done = host.install(delta)
    assert (done.path / "original" / "model.safetensors").read_bytes() == WEIGHTS


def test_a_blob_that_was_cut_short_is_not_held(host: Host, first: Path, delta: Path) -> None:
    host.install(first)
    blob(host).chmod(0o644)
    with blob(host).open("r+b") as stream:
        stream.truncate(1000)
    before = host.state()
    with pytest.raises(MissingVolumeError, match=r"carried by tiny-1\.0\.0"):
        host.install(delta)
    assert host.state() == before
    assert take_inventory(host.home).find(Digest.of(WEIGHTS), len(WEIGHTS)) is None


def test_what_a_delta_holds_outlives_the_generation_that_brought_it(
    host: Host, first: Path, delta: Path
) -> None:
    host.install(first)
    host.install(delta)
    uninstall(host.home, "tiny", 1, now=NOW, operator="tester")
    assert free_space(host.home, now=NOW, operator="tester") == len(FILES["config.json"])
    generation = find_generation(host.home, "tiny")
    assert (generation.path / "original" / "model.safetensors").read_bytes() == WEIGHTS
    assert blob(host).exists()


def test_only_what_the_wanted_variant_needs_must_be_held(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(
        tmp_path / "b", [key], files=FILES, held=HELD, engine_variants=[demo_variant]
    )
    with pytest.raises(MissingVolumeError):
        host.install(bundle)
    host.install(bundle, variant="q4_k_m")
    assert host.current() == 1


def test_a_delta_that_carries_nothing_is_installed(
    tmp_path: Path, host: Host, first: Path, key: SigningKey
) -> None:
    host.install(first)
    held = dict.fromkeys(FILES, "tiny-1.0.0")
    empty = make_bundle(tmp_path / "e", [key], version="3", sequence=3, files=FILES, held=held)
    done = host.install(empty)
    installed = {p.name: p.read_bytes() for p in (done.path / "original").iterdir()}
    assert {name: data for name, data in installed.items() if name != "model.sig"} == FILES


def test_a_refused_delta_leaves_what_it_did_not_bring(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    """The smoke test fails behind the staging: what came goes, what was held stays."""
    host.install(make_bundle(tmp_path / "a", [key], files={}, engine_variants=[demo_variant]))
    golden = demo_variant.golden
    passage = replace(golden.passage, loss=golden.passage.loss // 2)
    other = replace(demo_variant, golden=replace(golden, passage=passage))
    bundle = make_bundle(
        tmp_path / "b", [key], version="2", sequence=2, files=LATER, engine_variants=[other],
        held={demo_variant.model.name: "tiny-1.0.0"},
    )  # fmt: skip
    before = host.state()
    with pytest.raises(SmokeTestError):
        host.install(bundle, smoke=True)
    assert host.state() == before
    assert smoke(host.home, "tiny", None, Silent()).ok


def test_the_inventory_says_what_is_held_and_nothing_of_the_host(
    host: Host, first: Path, delta: Path, tmp_path: Path
) -> None:
    assert take_inventory(host.home).files == ()
    host.install(first)
    host.install(delta)
    data = encode_inventory(take_inventory(host.home))
    found = parse_inventory(data)
    assert {(f.digest, f.size, f.bundle) for f in found.files} == {
        (Digest.of(WEIGHTS), len(WEIGHTS), "tiny-1.0.0"),
        (Digest.of(FILES["config.json"]), 3, "tiny-1.0.0"),
        (Digest.of(LATER["config.json"]), len(LATER["config.json"]), "tiny-2.0.0"),
    }
    assert [(b.name, b.version, b.sequence) for b in found.bundles] == [
        ("tiny", "1.0.0", 1),
        ("tiny", "2.0.0", 2),
    ]
    assert found.bundles[0].digest == Digest.of((first / "SHA256SUMS").read_bytes())
    assert str(tmp_path).encode() not in data
    assert b"tester" not in data


def test_what_only_another_variant_has_is_not_in_the_inventory(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], files=FILES, engine_variants=[demo_variant])
    host.install(bundle, variant="q4_k_m")
    size = demo_variant.model.stat().st_size
    assert [file.size for file in take_inventory(host.home).files] == [size]
    whole = read_base(bundle).inventory
    assert whole.size == size + sum(map(len, FILES.values()))


REQUIREMENTS = b"click==8.1 --hash=sha256:0\n"
SETUP_FILES = {
    "a-1-any.whl": b"wheel",
    "libgomp.so.1": b"library",
    "requirements-3.11.txt": REQUIREMENTS,
    "setup.sh": b"#!/bin/sh\n",
}
TEXTS = {name: SETUP_FILES[name] for name in ("requirements-3.11.txt", "setup.sh")}


def environment(place: Path, requirements: bytes | None) -> Path:
    """An environment with what ``setup.sh`` leaves in it; ``None``: airpack came another way."""
    record = place / "lib" / "airpack" / "requirements.txt"
    record.parent.mkdir(parents=True)
    if requirements is not None:
        record.write_bytes(requirements)
    return place


def setups(inventory: Inventory) -> list[tuple[str, list[str]]]:
    return [(s.bundle, [file.path for file in s.files]) for s in inventory.set_up_with]


WITH_FIRST = ("tiny-1.0.0", ["setup/a-1-any.whl", "setup/libgomp.so.1"])


def test_the_inventory_says_what_this_very_airpack_was_set_up_with(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    newer = {**SETUP_FILES, "a-1-any.whl": b"newer", "requirements-3.11.txt": b"newer\n"}
    host.install(make_bundle(tmp_path / "a", [key], setup=SETUP_FILES))
    host.install(make_bundle(tmp_path / "b", [key], version="2", sequence=2, setup=newer))
    old = take_inventory(host.home, environment(tmp_path / "old", REQUIREMENTS))
    assert setups(old) == [WITH_FIRST]  # to install the second was not to be set up with it
    new = take_inventory(host.home, environment(tmp_path / "new", b"newer\n"))
    assert [setup.bundle for setup in new.set_up_with] == ["tiny-2"]
    none = take_inventory(host.home, environment(tmp_path / "none", b"other\n"))
    assert none.set_up_with == ()
    assert none.files == old.files


def test_an_airpack_that_came_another_way_goes_by_its_version(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    host.install(make_bundle(tmp_path / "a", [key], setup=SETUP_FILES))
    host.install(
        make_bundle(tmp_path / "b", [key], name="other", setup=SETUP_FILES, airpack="99.0")
    )
    found = take_inventory(host.home, environment(tmp_path / "env", None))
    assert setups(found) == [WITH_FIRST]


def test_a_delta_without_airpack_is_whole_installs_and_hands_on_what_it_was_made_for(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    host.install(make_bundle(tmp_path / "a", [key], files=FILES, setup=SETUP_FILES))
    here = environment(tmp_path / "env", REQUIREMENTS)
    (setup,) = take_inventory(host.home, here).set_up_with
    delta = make_bundle(
        tmp_path / "b", [key], version="2", sequence=2, files=LATER, held=HELD, setup=TEXTS,
        set_up_with=setup,
    )  # fmt: skip
    assert host.verify(delta).ok
    host.install(delta)
    uninstall(host.home, "tiny", 1, now=NOW, operator="tester")
    assert setups(take_inventory(host.home, here)) == [WITH_FIRST]
    assert read_base(delta).inventory.set_up_with == (setup,)


def test_a_damaged_record_of_the_setup_is_named(tmp_path: Path, host: Host) -> None:
    here = environment(tmp_path / "env", None)
    (here / "lib" / "airpack" / "requirements.txt").mkdir()
    with pytest.raises(IntegrityError, match=r"requirements\.txt"):
        take_inventory(host.home, here)


def test_a_bundle_without_wheels_sets_nobody_up(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    host.install(make_bundle(tmp_path / "a", [key], setup=TEXTS))
    here = environment(tmp_path / "env", REQUIREMENTS)
    assert take_inventory(host.home, here).set_up_with == ()
