"""How a payload is cut into volumes that fit media, decided from sizes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.connected.packing.layout import (
    LARGEST_AUTO,
    MOST_VOLUMES,
    VOLUMES_WITH_PARITY,
    Cut,
    Member,
    choose_chunk_size,
    cut_payload,
    plan_payload,
    volume_limit,
)
from packager.errors import UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.parity import MAX_VOLUMES_WITH_PARITY
from packager.format.volumes import MAX_CHUNK_SIZE, MAX_PAYLOAD_SIZE, MIN_CHUNK_SIZE
from packager.store.filesystem import FAT32_MAX_FILE_SIZE

KIB64 = MIN_CHUNK_SIZE
GIB = 1 << 30
NOTHING = Digest.of(b"")


def members(*sizes: int) -> list[Member]:
    return [Member(f"f/{n}", Path("a"), size, NOTHING) for n, size in enumerate(sizes)]


def data_sizes(cut: Cut) -> list[int]:
    return [volume.size for volume in cut.volumes]


def test_volumes_hold_whole_chunks_and_no_more_than_asked() -> None:
    plan = plan_payload(members(10 * KIB64), 3 * KIB64 + 5)

    assert plan.chunk_size == KIB64
    assert data_sizes(plan.cut) == [3 * KIB64, 3 * KIB64, 3 * KIB64, KIB64 + 1536]
    assert [volume.offset for volume in plan.volumes] == [n * 3 * KIB64 for n in range(4)]
    assert [volume.name for volume in plan.volumes][::3] == ["payload.00001", "payload.00004"]


@given(st.integers(1024, MAX_PAYLOAD_SIZE), st.integers(0, 40))
def test_auto_volumes_fit_fat32_and_pack_well(size: int, parity: int) -> None:
    most = MAX_VOLUMES_WITH_PARITY - parity if parity else MOST_VOLUMES
    if parity and size > most * (FAT32_MAX_FILE_SIZE - MAX_CHUNK_SIZE):
        with pytest.raises(UsageError, match=f"there may be {most} beside {parity} of parity"):
            cut_payload(size, None, parity)
        return
    cut = cut_payload(size, None, parity)

    sizes = data_sizes(cut)
    assert sum(sizes) == size
    assert len({*sizes[:-1]}) <= 1
    assert 0 < sizes[-1] <= sizes[0]
    assert all(volume % cut.chunk_size == 0 for volume in sizes[:-1])
    assert max(cut.sizes) <= FAT32_MAX_FILE_SIZE
    assert len(sizes) <= most
    if parity and size >= VOLUMES_WITH_PARITY**2 * cut.chunk_size:
        assert len(sizes) >= VOLUMES_WITH_PARITY or len(sizes) > most - 1
    if size <= most * (LARGEST_AUTO - MAX_CHUNK_SIZE):
        assert max(cut.sizes) <= LARGEST_AUTO


@given(st.integers(1024, MAX_PAYLOAD_SIZE), st.integers(1, 5))
def test_one_parity_volume_is_about_a_twentieth_at_most(size: int, parity: int) -> None:
    if size <= 200 * GIB:
        cut = cut_payload(size, None, parity)
        assert cut.sizes[-1] <= size / VOLUMES_WITH_PARITY + cut.chunk_size


@pytest.mark.parametrize(
    ("size", "parity", "volumes", "largest"),
    [
        (70 << 20, 0, 1, 70 << 20),
        (40 * 10**9, 0, 38, GIB),
        (40 * 10**9, 2, 38, GIB),
        (5 * GIB, 1, 20, GIB // 4),
        (100 << 20, 1, 20, (5 << 20) + KIB64),
        (800 * GIB, 3, 252, FAT32_MAX_FILE_SIZE),
        (1 << 40, 0, 1024, GIB),
    ],
)
def test_auto_for_payloads_that_people_have(
    size: int, parity: int, volumes: int, largest: int
) -> None:
    cut = cut_payload(size, None, parity)

    assert len(cut.volumes) in (volumes, volumes - 1)
    assert 0.75 * largest < cut.volumes[0].size <= largest


@pytest.mark.parametrize("wanted", [4 * GIB, FAT32_MAX_FILE_SIZE])
def test_105_who_asks_for_4_gib_gets_what_fat32_takes(wanted: int) -> None:
    assert volume_limit(wanted) == FAT32_MAX_FILE_SIZE

    sizes = data_sizes(cut_payload(9 * GIB, wanted, 0))
    assert sizes[0] == FAT32_MAX_FILE_SIZE // choose_chunk_size(9 * GIB) * choose_chunk_size(
        9 * GIB
    )


def test_105_a_size_above_what_fat32_takes_is_taken_at_its_word() -> None:
    assert data_sizes(cut_payload(20 * GIB, 8 * GIB, 0)) == [8 * GIB, 8 * GIB, 4 * GIB]


def test_chunk_sizes_are_powers_of_two_within_the_format() -> None:
    sizes = [choose_chunk_size(1 << power) for power in range(44)]

    assert sizes == sorted(sizes)
    assert {sizes[0], sizes[-1]} == {MIN_CHUNK_SIZE, MAX_CHUNK_SIZE}
    assert all(size & (size - 1) == 0 for size in sizes)


@pytest.mark.parametrize(
    ("size", "wanted", "parity"),
    [
        (1 << 20, KIB64 - 1, 0),
        (1 << 20, 0, 0),
        (1 << 40, 1 << 23, 0),
        (1 << 30, 1 << 20, 1),
        (1 << 30, 1 << 20, 254),
        (2 << 40, None, 1),
    ],
)
def test_volumes_too_small_for_the_payload_are_refused_before_packing(
    size: int, wanted: int | None, parity: int
) -> None:
    with pytest.raises(UsageError, match="too small") as caught:
        plan_payload(members(size), wanted, parity)

    hint = caught.value.hint or ""
    least = int(hint.split()[1])
    plan = plan_payload(members(size), least, parity)
    with pytest.raises(UsageError, match="too small"):
        plan_payload(members(size), least - 1, parity)
    assert ("FAT32 takes no such file" in hint) == (plan.volumes[0].size > FAT32_MAX_FILE_SIZE)


def test_as_many_parity_volumes_as_there_may_be_volumes_are_refused() -> None:
    with pytest.raises(UsageError, match="255 parity volumes: there may be 255") as caught:
        cut_payload(1 << 20, None, 255)
    assert caught.value.hint == "--parity 254 or fewer"
    assert len(cut_payload(1 << 20, None, 254).volumes) == 1


@pytest.mark.parametrize("paths", [["../a"], ["a\\b"], ["a", "A"], ["a", "a/b"]])
def test_paths_that_no_index_may_hold_are_refused_before_packing(paths: list[str]) -> None:
    with pytest.raises(UnsafeContentError):
        plan_payload([Member(path, Path("a"), 0, NOTHING) for path in paths], None)


def test_a_draft_has_all_that_the_index_will_have_but_the_digests() -> None:
    plan = plan_payload(members(10 * KIB64), 3 * KIB64, 2)

    payload, parity = plan.draft()
    assert (payload.size, payload.chunk_size) == (plan.layout.size, KIB64)
    assert len(payload.chunks) == 11
    assert [(volume.name, volume.size) for volume in parity] == [
        ("parity.00001", 3 * KIB64),
        ("parity.00002", 3 * KIB64),
    ]
    assert plan.cut.sizes == (3 * KIB64, 3 * KIB64, 3 * KIB64, KIB64 + 1536, 3 * KIB64, 3 * KIB64)
