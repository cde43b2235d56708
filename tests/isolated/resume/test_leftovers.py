"""What interrupted installs leave, and when it goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, make_bundle, make_key
from support.hosts import NOW, Host
from support.resuming import FILES, check_installed, interrupt_install

from packager.connected.signing.keys import SigningKey
from packager.errors import MissingVolumeError, TrustError
from packager.isolated.lifecycle import free_space, uninstall


def test_what_a_release_left_that_was_never_finished_goes_with_the_next_one(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    other = make_bundle(tmp_path / "o", [key], name="other", files={"w": FILES["b.safetensors"]})
    interrupt_install(running, bundle)
    interrupt_install(running, other, at=CHUNK_SIZE)
    partials = running.partials()
    assert len(partials) > 1
    later = make_bundle(tmp_path / "l", [key], version="3", sequence=3, files={"a": b"small"})
    assert running.install(later).path.name == "2"
    assert [path.name for path in running.home.partials.iterdir()] == ["other"]
    running.install(other)
    assert not running.home.partials.exists()


def test_gc_and_the_models_removal_free_what_is_left(running: Host, bundle: Path) -> None:
    interrupt_install(running, bundle)
    assert free_space(running.home, now=NOW, operator="tester") >= 8 * CHUNK_SIZE
    assert running.partials() == {}
    interrupt_install(running, bundle)
    uninstall(running.home, "tiny", None, now=NOW, operator="tester")
    assert not running.home.partials.exists()


def test_04_48_what_is_refused_before_a_byte_of_the_payload_is_read_leaves_nothing(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    stranger = make_bundle(tmp_path / "s", [make_key(tmp_path / "k")], sequence=2, files=FILES)
    with pytest.raises(TrustError):
        running.install(stranger)
    stick = Path(shutil.copytree(bundle, tmp_path / "stick"))
    (stick / "payload.00002").unlink()
    with pytest.raises(MissingVolumeError):
        running.install(stick)
    assert not running.home.partials.exists()


def test_what_is_here_survives_a_refusal_that_reads_nothing(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle)
    partials = running.partials()
    stick = Path(shutil.copytree(bundle, tmp_path / "stick"))
    (stick / "payload.00005").unlink()
    with pytest.raises(MissingVolumeError):
        running.install(stick)
    assert running.partials() == partials
    running.install(bundle)
    check_installed(running)
