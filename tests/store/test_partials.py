"""Files on their way into the store: whole ones become blobs, others wait, and are swept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from packager.errors import HostError, SmokeTestError
from packager.format.digest import Digest
from packager.store.blobs import has_blob, link_blob
from packager.store.home import Home
from packager.store.partials import (
    find_partial,
    incoming_blob,
    partial_room,
    remove_partials,
    room_taken,
    taking_back,
)

DATA = os.urandom(200_000)
DIGEST = Digest.of(DATA)
HALF = 1 << 16


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def put(home: Home, data: bytes, name: str = "tiny") -> Digest:
    digest = Digest.of(data)
    with incoming_blob(home, name, digest, len(data)) as blob:
        blob.write(memoryview(data), 0)
    return digest


def interrupt(home: Home, name: str = "tiny", size: int = HALF) -> Path:
    """Write the first ``size`` bytes of DATA, and be interrupted."""

    def interrupted() -> None:
        with incoming_blob(home, name, DIGEST, len(DATA)) as blob:
            blob.write(memoryview(DATA)[:size], 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    return home.partial(name, DIGEST)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir()]


def test_a_blob_is_written_in_any_order_and_then_read_only(home: Home) -> None:
    with incoming_blob(home, "tiny", DIGEST, len(DATA)) as blob:
        blob.write(memoryview(DATA)[3000:], 3000)
        assert not has_blob(home, DIGEST, len(DATA))
        blob.write(memoryview(DATA)[:3000], 0)
    assert has_blob(home, DIGEST, len(DATA))
    assert files(home.root) == [home.blob(DIGEST)]
    assert home.blob(DIGEST).read_bytes() == DATA
    assert home.blob(DIGEST).stat().st_mode & 0o777 == 0o444


def test_an_interrupt_leaves_what_was_written_and_the_next_one_goes_on(home: Home) -> None:
    path = interrupt(home)
    assert files(home.root) == [path]
    assert path.read_bytes() == DATA[:HALF] + bytes(len(DATA) - HALF)
    assert find_partial(home, DIGEST) == path
    with incoming_blob(home, "tiny", DIGEST, len(DATA)) as blob:
        blob.write(memoryview(DATA)[HALF:], HALF)
    assert home.blob(DIGEST).read_bytes() == DATA
    assert files(home.root) == [home.blob(DIGEST)]


def test_an_interrupt_before_anything_was_written_leaves_nothing(home: Home) -> None:
    interrupt(home, size=0)
    assert not home.partials.exists()
    assert files(home.root) == []


def test_what_is_discarded_does_not_wait(home: Home) -> None:
    def refused() -> None:
        with incoming_blob(home, "tiny", DIGEST, len(DATA)) as blob:
            blob.write(memoryview(DATA)[:HALF], 0)
            blob.discard()
            raise SmokeTestError("no")

    with pytest.raises(SmokeTestError):
        refused()
    assert not home.partials.exists()


def test_a_file_begun_for_another_model_is_gone_on_with(home: Home) -> None:
    interrupt(home, "first")
    assert interrupt(home, "second", size=0).read_bytes()[:HALF] == DATA[:HALF]
    assert [*home.partials.rglob("*")] == [home.partials / "second", home.partial("second", DIGEST)]


def test_a_file_that_was_made_read_only_before_the_end_is_gone_on_with(home: Home) -> None:
    path = interrupt(home)
    path.chmod(0o444)
    assert put(home, DATA) == DIGEST
    assert home.blob(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo"])
def test_55_56_what_is_no_file_of_its_own_is_replaced_and_never_written_through(
    home: Home, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    path = home.partial("tiny", DIGEST)
    path.parent.mkdir(parents=True)
    make: dict[str, Callable[[], None]] = {
        "symlink": lambda: path.symlink_to(victim),
        "hard link": lambda: os.link(victim, path),
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    assert find_partial(home, DIGEST) is None
    put(home, DATA)
    assert home.blob(DIGEST).read_bytes() == DATA
    assert victim.read_bytes() == b"mine"


def test_blobs_that_came_in_a_block_which_was_interrupted_wait_and_others_stay(home: Home) -> None:
    old = put(home, b"there before")
    new, linked = Digest.of(b"new"), Digest.of(b"linked")

    def interrupted(error: BaseException) -> None:
        with taking_back(home, "tiny", [old, new, linked, DIGEST]):
            put(home, b"new")
            if not has_blob(home, linked, 6):
                link_blob(home, put(home, b"linked"), home.root / "holds it")
            raise error

    for error in (KeyboardInterrupt(), HostError("full")):
        with pytest.raises(type(error)):
            interrupted(error)
        assert sorted(files(home.blobs)) == sorted([home.blob(old), home.blob(linked)])
        assert files(home.partials) == [home.partial("tiny", new)]
    with pytest.raises(SmokeTestError):  # the model itself is no good: nobody needs it again
        interrupted(SmokeTestError("other tokens"))
    assert sorted(files(home.blobs)) == sorted([home.blob(old), home.blob(linked)])
    assert files(home.partials) == []


def test_the_room_of_a_partial_file_is_what_was_written(home: Home) -> None:
    path = interrupt(home)
    assert HALF <= room_taken(path) < len(DATA)
    assert partial_room(home, "tiny") == partial_room(home) == room_taken(path)
    assert partial_room(home, "other") == 0


def test_those_of_one_model_are_removed_or_all_of_them(home: Home) -> None:
    mine, other = interrupt(home, "mine"), home.partial("other", Digest.of(b"x"))
    other.parent.mkdir()
    other.write_bytes(bytes(9000))
    freed = room_taken(mine)
    assert remove_partials(home, "mine") == freed
    assert files(home.partials) == [other]
    assert remove_partials(home) >= 9000
    assert not home.partials.exists()
    assert remove_partials(home) == 0
