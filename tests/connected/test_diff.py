"""``airpack diff``: what a delta would carry, told beforehand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from support.bundles import make_bundle
from support.deltas import Shell, Trip, setup_of
from support.workplace import Workplace

WHEELS = (("setup/a-1-any.whl", b"a"), ("setup/libgomp.so.1", b"gomp"))


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


def test_two_inventories_have_no_difference_in_files(trip: Trip, tmp_path: Path) -> None:
    done = Shell(tmp_path, tmp_path).run("diff", trip.inventory, trip.inventory, code=2)
    assert "both are inventories" in done.stderr
