"""A link where airpack is about to write: nothing is written through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import HostError
from packager.store.atomic import write_file
from packager.store.home import Home


def test_106_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "lock").symlink_to(victim)
    with pytest.raises(HostError, match=f"{home.root}/lock"), home.changing():
        pytest.fail("the lock was taken")
    assert victim.read_bytes() == b"untouched"


def test_106_a_file_replaces_the_link_in_its_place_and_not_what_it_leads_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    target = tmp_path / "sequences.json"
    target.symlink_to(victim)
    write_file(target, b"{}\n")
    assert victim.read_bytes() == b"untouched"
    assert not target.is_symlink()
    assert target.read_bytes() == b"{}\n"
