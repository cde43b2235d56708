"""Which files of a release stay at home, by what its host holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.deltas import setup_of

from packager.connected.packing.delta import leave_out, leave_out_setup
from packager.connected.packing.layout import Member
from packager.errors import UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.held import Setup
from packager.format.inventory import Inventory, InventoryFile

ONE = Digest.of(b"one")
TEXT = ("setup/setup.sh", b"#!/bin/sh")
WHEELS = (("setup/a-1-any.whl", b"a"), ("setup/libgomp.so.1", b"gomp"))


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
    monkeypatch.setattr("packager.connected.packing.delta.MAX_FILES", 1)
    with pytest.raises(UsageError, match="2 files: a bundle holds at most 1"):
        leave_out(members(("a", b"one"), ("b", b"two")), None)
