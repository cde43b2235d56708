"""A ticket and its patch, all the way, by the commands that people type."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundles import flip_bit, make_key
from support.hosts import Host
from support.tickets import airpack, bundle_without_parity

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """A bundle as it was built, without parity, in volumes of two chunks."""
    return bundle_without_parity(tmp_path_factory.mktemp("built"), key)


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    """The same on a medium."""
    return Path(shutil.copytree(built, tmp_path / "medium" / built.name))


def test_the_whole_way_by_the_commands(
    bundle: Path, built: Path, tmp_path: Path, key: SigningKey
) -> None:
    home, ticket, team = tmp_path / "home", tmp_path / "ticket.txt", tmp_path / "team"
    signer = make_key(team)
    source = Path(shutil.copytree(built, tmp_path / "source" / bundle.name))
    for directory in (bundle, source):
        sign_bundle(directory, signer)
    assert airpack(home, "trust", "add", f"{team}.pub").returncode == 0
    whole = airpack(home, "verify", bundle, "--ticket", ticket)
    assert (whole.returncode, ticket.exists()) == (0, False)
    assert "no ticket is needed" in whole.stderr
    flip_bit(bundle / "payload.00002", 5)
    (bundle / "payload.00005").unlink()

    found = airpack(home, "verify", bundle, "--ticket", ticket)
    assert found.returncode == 10
    assert found.stdout.endswith(f"\n\n{ticket.read_text()}")
    assert f"airpack build BUNDLE --for-ticket {ticket}" in found.stderr

    answer = ["--for-ticket", ticket, "-o", tmp_path / "out", "--key", team]
    made = airpack(home, "build", source, *answer)
    assert made.returncode == 0, made.stderr
    [patch] = (tmp_path / "out").iterdir()

    mended = airpack(home, "repair", bundle, patch, "--in-place")
    assert mended.returncode == 0, mended.stderr
    assert airpack(home, "verify", bundle).returncode == 0
    assert airpack(home, "install", bundle, "--no-smoke").returncode == 0


def test_what_makes_no_sense_for_a_ticket_is_said_at_once(
    bundle: Path, tmp_path: Path, host: Host
) -> None:
    inside = airpack(host.home.root, "verify", bundle, "--ticket", bundle / "t.txt")
    assert (inside.returncode, (bundle / "t.txt").exists()) == (2, False)
    nowhere = airpack(host.home.root, "verify", bundle, "--ticket", tmp_path / "no" / "t.txt")
    assert nowhere.returncode == 2
    answer = ["build", bundle, "--for-ticket", tmp_path / "t", "-o", tmp_path / "out"]
    extra = airpack(host.home.root, *answer, "--parity", "1")
    assert (extra.returncode, "--parity and --for-ticket" in extra.stderr) == (2, True)
    assert airpack(host.home.root, "build", bundle, "-o", tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()
