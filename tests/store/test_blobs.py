from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import HostError
from packager.format.digest import Digest
from packager.store.blobs import collect_garbage, has_blob, link_blob
from packager.store.home import Home
from packager.store.partials import incoming_blob


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def put(home: Home, data: bytes) -> Digest:
    digest = Digest.of(data)
    with incoming_blob(home, "tiny", digest, len(data)) as blob:
        blob.write(memoryview(data), 0)
    return digest


def files(home: Home) -> list[Path]:
    return [path for path in home.blobs.rglob("*") if path.is_file()]


def test_a_blob_is_there_with_its_size_only(home: Home) -> None:
    digest = put(home, b"kept")
    assert has_blob(home, digest, 4)
    assert not has_blob(home, digest, 5)
    assert not has_blob(home, Digest.of(b"other"), 5)


def test_an_empty_blob_is_a_blob(home: Home) -> None:
    assert has_blob(home, put(home, b""), 0)


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
    digest = put(home, b"kept")
    link_blob(home, digest, home.root / "model")
    assert home.blob(digest).samefile(home.root / "model")
    with pytest.raises(HostError, match="file exists"):
        link_blob(home, digest, home.root / "model")
