"""What the disk has forgotten is found by reading it, named, and mended from a medium."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from support.bundles import flip_bit, make_bundle
from support.hosts import NOW, Host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import HostError, IntegrityError, UsageError
from packager.isolated.media import open_media
from packager.isolated.scrub import Scrubbed, Source
from packager.isolated.scrub import scrub as scrub_home
from packager.isolated.verify import authenticate
from packager.progress import Silent
from packager.store.generations import find_generation

WEIGHTS = weights(random.Random(3).randbytes(300_000))
OTHERS = weights(random.Random(4).randbytes(70_000))


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    files = {"model.safetensors": WEIGHTS, "more.safetensors": OTHERS, "config.json": b"{}\n"}
    return make_bundle(tmp_path / "stick", [key], files=files)


@pytest.fixture
def installed(host: Host, bundle: Path, tmp_path: Path, key: SigningKey) -> Host:
    """Two generations that share the weights; the second is current."""
    host.install(bundle)
    files = {"model.safetensors": WEIGHTS, "config.json": b'{"new": 1}\n'}
    host.install(make_bundle(tmp_path / "next", [key], version="2.0.0", sequence=2, files=files))
    return host


def scrub(host: Host, name: str | None = None, repair: Path | None = None) -> Scrubbed:
    source = None
    if repair is not None:
        media = open_media([repair])
        source = Source(authenticate(media, host.keyring, now=NOW), media)
    return scrub_home(host.home, name, source, Silent(), now=NOW, operator="tester")


def weights_of(host: Host, number: int) -> Path:
    return host.home.models / "tiny" / str(number) / "original" / "model.safetensors"


def damaged(found: Scrubbed) -> list[tuple[int, str, str]]:
    return [(d.file.generation, d.file.path.name, d.fact) for d in found.damage]


def test_what_is_whole_is_read_once_for_all_its_names(installed: Host) -> None:
    found = scrub(installed)

    assert found.ok
    assert (found.files, found.size) == (4, len(WEIGHTS) + len(OTHERS) + 3 + 11)
    event = installed.events()[-1]
    assert (event.what, event.details["damaged"], event.details["files"]) == ("scrub", [], 4)


@pytest.mark.parametrize("position", [0, 123_456, -1])
def test_53_a_flipped_bit_is_named_in_every_generation_that_has_the_file(
    installed: Host, position: int
) -> None:
    flip_bit(weights_of(installed, 1), position)

    found = scrub(installed)

    fact = "other bytes than were installed"
    assert damaged(found) == [(1, "model.safetensors", fact), (2, "model.safetensors", fact)]
    assert len(installed.events()[-1].details["damaged"]) == 2


def test_a_file_that_is_shorter_or_gone_is_named(installed: Host) -> None:
    weights_of(installed, 1).chmod(0o644)
    os.truncate(weights_of(installed, 1), 1000)
    (weights_of(installed, 1).with_name("more.safetensors")).unlink()

    assert damaged(scrub(installed)) == [
        (1, "model.safetensors", f"1000 bytes, not {len(WEIGHTS)}"),
        (2, "model.safetensors", f"1000 bytes, not {len(WEIGHTS)}"),
        (1, "more.safetensors", "missing"),
    ]


def test_59_bytes_that_the_disk_does_not_give_are_named(installed: Host) -> None:
    """A directory in a file's place gives EISDIR to whoever reads it."""
    path = weights_of(installed, 1).with_name("more.safetensors")
    path.unlink()
    path.mkdir()

    assert damaged(scrub(installed)) == [(1, "more.safetensors", "cannot be read")]


def test_it_is_mended_from_the_medium_in_every_generation(installed: Host, bundle: Path) -> None:
    flip_bit(weights_of(installed, 1), 5)
    weights_of(installed, 1).with_name("more.safetensors").unlink()

    found = scrub(installed, repair=bundle)

    assert found.ok
    assert len(found.mended) == 3
    assert weights_of(installed, 1).read_bytes() == weights_of(installed, 2).read_bytes() == WEIGHTS
    assert weights_of(installed, 1).stat().st_ino == weights_of(installed, 2).stat().st_ino
    assert weights_of(installed, 1).with_name("more.safetensors").read_bytes() == OTHERS
    assert weights_of(installed, 1).stat().st_mode & 0o222 == 0
    assert not [*installed.home.root.rglob(".tmp-*")]
    assert scrub(installed).ok


def test_another_bundle_that_carries_the_file_mends_it_too(
    installed: Host, tmp_path: Path, key: SigningKey
) -> None:
    other = make_bundle(tmp_path / "other", [key], name="other", files={"w.safetensors": WEIGHTS})
    flip_bit(weights_of(installed, 2), 5)

    assert scrub(installed, repair=other).ok
    assert weights_of(installed, 2).read_bytes() == WEIGHTS


def test_what_the_medium_does_not_carry_stays_named(
    installed: Host, tmp_path: Path, key: SigningKey
) -> None:
    other = make_bundle(tmp_path / "other", [key], name="other", files={"w.safetensors": WEIGHTS})
    path = weights_of(installed, 1).with_name("more.safetensors")
    flip_bit(path, 5)
    flip_bit(weights_of(installed, 2), 5)

    found = scrub(installed, repair=other)

    assert [d.file.path for d in found.damage] == [path]
    assert {f.path.name for f in found.mended} == {"model.safetensors"}


def test_53_a_damaged_medium_mends_nothing(installed: Host, bundle: Path) -> None:
    flip_bit(weights_of(installed, 1), 5)
    flip_bit(bundle / "payload.00001", 10_000)
    before = installed.state()

    with pytest.raises(IntegrityError, match="chunk 0"):
        scrub(installed, repair=bundle)

    assert installed.state() == before


def test_a_damaged_index_is_named_and_the_other_generation_is_still_read(installed: Host) -> None:
    flip_bit(installed.home.models / "tiny" / "1" / "bundle.json", 100)
    flip_bit(weights_of(installed, 2), 5)

    found = scrub(installed)

    assert not found.ok
    assert len(found.unreadable) == 1
    assert "its evidence is damaged" in found.unreadable[0]
    assert damaged(found) == [(2, "model.safetensors", "other bytes than were installed")]
    assert find_generation(installed.home, "tiny").number == 2


@pytest.mark.parametrize("damaged_too", [(), ("SHA256SUMS",)])
def test_a_damaged_index_is_mended_from_the_very_bundle(
    installed: Host, bundle: Path, damaged_too: tuple[str, ...]
) -> None:
    directory = installed.home.models / "tiny" / "1"
    before = installed.state()
    for name in ("bundle.json", *damaged_too):
        flip_bit(directory / name, 100)

    assert scrub(installed, repair=bundle).ok
    assert installed.state() == before


@pytest.mark.parametrize("name", ["bundle.json", "SHA256SUMS"])
def test_an_index_that_was_changed_together_with_a_file_is_named_and_mended(
    installed: Host, bundle: Path, name: str
) -> None:
    path = installed.home.models / "tiny" / "1" / name
    before = path.read_bytes()
    first = re.search(rb"[0-9a-f]{64}", before)
    assert first is not None
    path.write_bytes(before.replace(first[0], b"0" * 64))
    found = scrub(installed)
    assert not found.ok
    assert f"{name} is not the one that was signed" in found.unreadable[0]
    assert scrub(installed, repair=bundle).ok
    assert path.read_bytes() == before


def test_a_damaged_index_is_not_mended_from_another_bundle(
    installed: Host, tmp_path: Path, key: SigningKey
) -> None:
    flip_bit(installed.home.models / "tiny" / "1" / "bundle.json", 100)
    before = installed.state()

    other = make_bundle(tmp_path / "other", [key], files={"model.safetensors": WEIGHTS})

    assert not scrub(installed, repair=other).ok
    assert installed.state() == before


def test_one_model_alone_is_read_where_it_is_named(
    installed: Host, tmp_path: Path, key: SigningKey
) -> None:
    installed.install(make_bundle(tmp_path / "b", [key], name="other", files={"w.txt": b"abc"}))
    assert scrub(installed, "other").files == 1
    with pytest.raises(UsageError, match="'none' is not installed"):
        scrub(installed, "none")


def test_103_nobody_scrubs_what_another_process_changes(installed: Host) -> None:
    with installed.home.changing(), pytest.raises(HostError, match="another airpack"):
        scrub(installed)
