from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.watching import WatchedTask

from packager.errors import HostError
from packager.format.digest import Digest
from packager.store.digests import GrowingDigest, file_digest, file_digests

SIZES = (0, 1, 1 << 20, (3 << 20) + 7)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / str(size) for size in SIZES]
    for path, size in zip(made, SIZES, strict=True):
        path.write_bytes(os.urandom(size))
    return made


def test_files_are_digested_in_order_and_every_byte_is_reported_on_the_way(
    paths: list[Path],
) -> None:
    task = WatchedTask("", sum(SIZES), 0)
    assert file_digests(paths, task) == [Digest.of(path.read_bytes()) for path in paths]
    assert task.done == task.total
    steps: list[int] = []

    class Steps:
        def advance(self, amount: int) -> None:
            steps.append(amount)

    file_digest(paths[-1], Steps())
    assert steps == [1 << 20, 1 << 20, 1 << 20, 7]


def test_a_file_that_cannot_be_read_ends_the_others_within_a_buffer(paths: list[Path]) -> None:
    large = paths[0].with_name("large")
    with large.open("wb") as stream:
        stream.truncate(1 << 36)  # a minute of zeros
    before = threading.active_count()
    with pytest.raises(HostError, match="nowhere: no such file"):
        file_digests([paths[0].with_name("nowhere"), large], WatchedTask("", 0, 0))
    assert threading.active_count() == before


def test_an_interrupt_ends_the_reading(paths: list[Path]) -> None:
    class Interrupted:
        def advance(self, _amount: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file_digests(paths, Interrupted())


@pytest.mark.parametrize("size", SIZES)
def test_a_digest_grows_with_what_passes_by_in_order_and_is_none_before_the_end(size: int) -> None:
    data = os.urandom(size)
    growing = GrowingDigest(size)
    for offset in range(0, size, 700_000):
        assert growing.value is None
        growing.take(memoryview(data)[offset : offset + 700_000], offset)
    assert growing.value == Digest.of(data)


def test_a_file_of_which_a_piece_did_not_pass_by_has_no_such_digest() -> None:
    growing = GrowingDigest(30)
    for offset in (0, 20, 10):
        growing.take(memoryview(bytes(10)), offset)
    assert growing.value is None
