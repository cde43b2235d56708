from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.bundles import make_bundle
from support.hosts import NOW, Host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import AirpackError, UsageError
from packager.isolated.lifecycle import free_space, roll_back, smoke, uninstall
from packager.isolated.trust_store import read_sequences
from packager.progress import Silent
from packager.store.generations import generations, installed_names

COMMON, WHO = b'"%s"' % (b"c" * 4998), "tester"
FILES: tuple[Mapping[str, bytes], ...] = tuple(
    {"common.json": COMMON, "model.safetensors": weights(b"%d" % number * 1000)}
    for number in (1, 2, 3)
)


@pytest.fixture
def host(tmp_path: Path, host: Host, key: SigningKey) -> Host:
    """A host with three generations that share a file; the third is current."""
    for number, files in enumerate(FILES, start=1):
        out = tmp_path / str(number)
        host.install(make_bundle(out, [key], version=f"{number}", sequence=number, files=files))
    return host


def numbers(host: Host) -> list[int]:
    return [g.number for g in generations(host.home, "tiny")]


def check_files(host: Host) -> None:
    """Every file of every generation is there, with its bytes."""
    for generation in generations(host.home, "tiny"):
        for name, data in FILES[generation.number - 1].items():
            assert (generation.path / "original" / name).read_bytes() == data


def gc(host: Host) -> int:
    return free_space(host.home, now=NOW, operator=WHO)


def test_rollback_goes_one_back_or_where_it_is_told(host: Host) -> None:
    assert roll_back(host.home, "tiny", None, now=NOW, operator=WHO).number == 2
    assert host.current() == 2
    assert roll_back(host.home, "tiny", None, now=NOW, operator=WHO).number == 1
    with pytest.raises(UsageError, match="tiny: there is no generation before 1"):
        roll_back(host.home, "tiny", None, now=NOW, operator=WHO)
    assert host.current() == 1
    assert roll_back(host.home, "tiny", 3, now=NOW, operator=WHO).current
    assert numbers(host) == [1, 2, 3]
    event = host.events()[-1]
    assert (event.what, event.details["generation"]) == ("rollback", 3)
    check_files(host)


def test_a_rollback_to_what_is_not_there_changes_nothing(host: Host) -> None:
    before, events = host.state(), host.events()
    with pytest.raises(UsageError, match="tiny has no generation 9; it has 1, 2, 3"):
        roll_back(host.home, "tiny", 9, now=NOW, operator=WHO)
    assert (host.state(), host.events()) == (before, events)


def test_garbage_collection_never_takes_what_a_generation_holds(host: Host) -> None:
    before = host.state()
    assert gc(host) == 0
    assert host.state() == before
    roll_back(host.home, "tiny", 1, now=NOW, operator=WHO)
    assert uninstall(host.home, "tiny", 3, now=NOW, operator=WHO) == (3,)
    assert numbers(host) == [1, 2]
    assert gc(host) == 1000
    check_files(host)
    assert host.events()[-1].details["freed"] == 1000


def test_the_current_generation_is_not_taken_away_alone(host: Host) -> None:
    before = host.state()
    with pytest.raises(UsageError, match="tiny: generation 3 is the current one"):
        uninstall(host.home, "tiny", 3, now=NOW, operator=WHO)
    with pytest.raises(UsageError, match="no generation 9"):
        uninstall(host.home, "tiny", 9, now=NOW, operator=WHO)
    assert host.state() == before


def test_an_uninstalled_model_leaves_its_mark_and_nothing_else(host: Host) -> None:
    assert uninstall(host.home, "tiny", None, now=NOW, operator=WHO) == (1, 2, 3)
    assert installed_names(host.home) == ()
    assert gc(host) == 8000
    assert sorted(host.state()) == [
        "trust/keyring.json", "trust/newest.json", "trust/sequences.json",
    ]  # fmt: skip
    mark = read_sequences(host.home).find("tiny")
    assert mark is not None
    assert mark.sequence == 3
    assert [event.what for event in host.events()][-2:] == ["uninstall", "gc"]


def test_16_an_uninstall_does_not_open_the_way_for_an_old_release(
    tmp_path: Path, host: Host
) -> None:
    uninstall(host.home, "tiny", None, now=NOW, operator=WHO)
    with pytest.raises(AirpackError, match="tiny-2 has sequence 2; this host has had 3") as caught:
        host.install(tmp_path / "2" / "tiny-2")
    assert caught.value.exit_code == 18


def test_the_last_generation_of_a_model_may_be_named(host: Host) -> None:
    for number in (1, 2):
        uninstall(host.home, "tiny", number, now=NOW, operator=WHO)
    with pytest.raises(UsageError, match="no generation 1"):
        uninstall(host.home, "tiny", 1, now=NOW, operator=WHO)
    assert uninstall(host.home, "tiny", 3, now=NOW, operator=WHO) == (3,)
    assert installed_names(host.home) == ()


def test_a_model_that_no_engine_opens_has_no_smoke_test(host: Host) -> None:
    with pytest.raises(UsageError, match="no variant that the engine opens installed"):
        smoke(host.home, "tiny", None, Silent())
