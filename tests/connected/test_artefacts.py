"""What is kept in the cache comes back as it was kept, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.watching import Watching

from packager.connected.artefacts import (
    check_space,
    find_bytes,
    find_document,
    find_file,
    keep_bytes,
    keep_document,
    keep_file,
    recorded_file,
)
from packager.connected.cache import Cache
from packager.errors import NoSpaceError
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.progress import Silent

KEY = Digest.of(b"what it is made from")
DATA = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def kept_file(cache: Cache) -> Path:
    out = cache.temporary(KEY, ".gguf")
    out.write_bytes(DATA)
    return keep_file(cache, KEY, ".gguf", out, name="a model", progress=Silent()).path


def whole_numbers(fields: Fields) -> int:
    return fields.integer("a")


def test_a_file_comes_back_with_its_digest_and_is_read_once(cache: Cache) -> None:
    path = kept_file(cache)
    watching = Watching()

    found = find_file(cache, KEY, ".gguf", name="a model", progress=watching)

    assert found is not None
    assert (found.path, found.digest) == (path, Digest.of(DATA))
    assert found == recorded_file(cache, KEY, ".gguf")
    assert [(task.label, task.done) for task in watching.tasks] == [("checking a model", len(DATA))]
    assert watching.notes == []
    assert list(cache.root.rglob(".tmp-*")) == []


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_a_file_with_a_flipped_bit_is_told_of_and_does_not_come_back(
    cache: Cache, place: int
) -> None:
    path = kept_file(cache)
    data = bytearray(DATA)
    data[place] ^= 1
    path.write_bytes(data)
    watching = Watching()

    assert find_file(cache, KEY, ".gguf", name="a model", progress=watching) is None
    assert watching.notes == [f"{path}: damaged in the cache; making a model again"]


@pytest.mark.parametrize("left", ["file", "sum", "broken sum"])
def test_a_file_or_a_digest_alone_is_nothing(cache: Cache, left: str) -> None:
    path = kept_file(cache)
    sum_path = path.with_name(path.name + ".sha256")
    if left == "broken sum":
        sum_path.write_text("0" * 65)
    else:
        (sum_path if left == "file" else path).unlink()

    assert recorded_file(cache, KEY, ".gguf") is None
    assert find_file(cache, KEY, ".gguf", name="a model", progress=Silent()) is None


def test_a_document_whose_figures_changed_does_not_come_back(cache: Cache) -> None:
    """It would still be valid, and be signed."""
    keep_document(cache, KEY, ".json", {"a": 12})
    most, watching = 100, Watching()

    def find() -> int | None:
        return find_document(
            cache, KEY, ".json", whole_numbers, most=most, name="the figures", progress=watching
        )

    assert find() == 12
    path = cache.derived(KEY, ".json")
    path.write_bytes(path.read_bytes().replace(b"12", b"13"))
    assert find() is None
    assert watching.notes == [f"{path}: damaged in the cache; making the figures again"]


def test_a_document_of_another_version_is_made_again(cache: Cache) -> None:
    keep_document(cache, KEY, ".json", {"b": 12})
    watching = Watching()

    assert (
        find_document(
            cache, KEY, ".json", whole_numbers, most=100, name="the figures", progress=watching
        )
        is None
    )
    assert len(watching.notes) == 1


def test_bytes_that_grew_beyond_their_limit_do_not_come_back(cache: Cache) -> None:
    keep_bytes(cache, KEY, ".bin", b"a matrix")
    cache.derived(KEY, ".bin").write_bytes(DATA)

    assert find_bytes(cache, KEY, ".bin", most=100, name="a matrix", progress=Silent()) is None


def test_what_has_no_room_is_refused_with_both_sizes(tmp_path: Path) -> None:
    check_space(tmp_path / "new", 1, "to quantize")
    with pytest.raises(NoSpaceError, match=r"new: 4096 TiB to quantize, and .* free") as caught:
        check_space(tmp_path / "new", 1 << 52, "to quantize")
    assert "AIRPACK_CACHE" in (caught.value.hint or "")
