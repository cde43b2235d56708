from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import HostError
from packager.format.digest import Digest
from packager.store.blobs import (
    collect_garbage,
    has_blob,
    incoming_blob,
    link_blob,
    sweep_incoming,
    undoing_blobs,
)
from packager.store.home import Home

DATA = b"weights" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def put(home: Home, data: bytes) -> Digest:
    digest = Digest.of(data)
    with incoming_blob(home, digest, len(data)) as blob:
        blob.write(memoryview(data), 0)
    return digest


def files(home: Home) -> list[Path]:
    return [path for path in home.blobs.rglob("*") if path.is_file()]


def test_a_blob_is_written_in_any_order_and_then_read_only(home: Home) -> None:
    with incoming_blob(home, DIGEST, len(DATA)) as blob:
        blob.write(memoryview(DATA)[3000:], 3000)
        assert not has_blob(home, DIGEST, len(DATA))
        blob.write(memoryview(DATA)[:3000], 0)
    assert has_blob(home, DIGEST, len(DATA))
    assert not has_blob(home, DIGEST, len(DATA) + 1)
    assert files(home) == [home.blob(DIGEST)]
    assert home.blob(DIGEST).read_bytes() == DATA
    assert home.blob(DIGEST).stat().st_mode & 0o777 == 0o444


def test_an_empty_blob_is_a_blob(home: Home) -> None:
    digest = put(home, b"")
    assert has_blob(home, digest, 0)


def test_an_error_while_writing_leaves_nothing(home: Home) -> None:
    def interrupted() -> None:
        with incoming_blob(home, DIGEST, len(DATA)) as blob:
            blob.write(memoryview(DATA), 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(home) == []


def test_a_failed_block_takes_its_own_unlinked_blobs_back_and_no_others(home: Home) -> None:
    old = put(home, b"there before")

    def failing() -> None:
        with undoing_blobs(home, [old, Digest.of(b"new"), Digest.of(b"linked"), DIGEST]):
            put(home, b"new")
            link_blob(home, put(home, b"linked"), home.root / "holds it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert sorted(files(home)) == sorted([home.blob(old), home.blob(Digest.of(b"linked"))])


def test_only_the_unfinished_blobs_of_a_dead_process_are_swept(home: Home) -> None:
    digest = put(home, DATA)
    left = home.blob(digest).with_name(f"{digest.hex}.incoming")
    left.write_bytes(b"half")
    sweep_incoming(home)
    assert files(home) == [home.blob(digest)]


def test_garbage_is_what_nothing_links_to(home: Home) -> None:
    kept, lost = put(home, b"kept"), put(home, b"lost!")
    link_blob(home, kept, home.root / "model")
    assert collect_garbage(home) == 5
    assert files(home) == [home.blob(kept)]
    assert not has_blob(home, lost, 5)
    assert (home.root / "model").read_bytes() == b"kept"
    (home.root / "model").unlink()
    assert collect_garbage(home) == 4
    assert files(home) == []


def test_a_blob_and_its_second_name_are_one_file(home: Home) -> None:
    digest = put(home, DATA)
    link_blob(home, digest, home.root / "model")
    assert home.blob(digest).samefile(home.root / "model")
    with pytest.raises(HostError, match="file exists"):
        link_blob(home, digest, home.root / "model")
