"""Volumes as files on the media: which chunks each holds, those of parity behind the payload's."""

from __future__ import annotations

import pytest

from packager.errors import MalformedError
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.parity import MAX_VOLUMES_WITH_PARITY
from packager.format.volumes import (
    MIN_CHUNK_SIZE,
    ParityVolume,
    Payload,
    Volume,
    VolumeFile,
    check_volumes,
    parity_name,
    volume_files,
    volume_name,
)

CHUNK = MIN_CHUNK_SIZE
WHERE = Fields({}, "bundle.json")


def payload(size: int) -> Payload:
    return Payload(size, CHUNK, (Digest.of(b""),) * -(-size // CHUNK))


def volumes(*sizes: int) -> list[Volume]:
    return [
        Volume(volume_name(number), size, sum(sizes[: number - 1]))
        for number, size in enumerate(sizes, start=1)
    ]


def parity(number: int, stripes: int, size: int) -> ParityVolume:
    return ParityVolume(parity_name(number), size, (Digest.of(b""),) * stripes)


def test_the_chunks_of_parity_are_counted_on_from_those_of_the_payload() -> None:
    whole = payload(4 * CHUNK + 7)
    sums = [parity(number, 2, 2 * CHUNK) for number in (1, 2)]
    files = volume_files(whole, volumes(2 * CHUNK, 2 * CHUNK, 7), sums)
    assert files == (
        VolumeFile("payload.00001", 2 * CHUNK, CHUNK, range(2)),
        VolumeFile("payload.00002", 2 * CHUNK, CHUNK, range(2, 4)),
        VolumeFile("payload.00003", 7, CHUNK, range(4, 5)),
        VolumeFile("parity.00001", 2 * CHUNK, CHUNK, range(5, 7)),
        VolumeFile("parity.00002", 2 * CHUNK, CHUNK, range(7, 9)),
    )
    assert files[2].place(4) == (0, 7)
    assert files[4].place(8) == (CHUNK, CHUNK)


def test_one_short_volume_is_one_stripe() -> None:
    files = volume_files(payload(7), volumes(7), [parity(1, 1, CHUNK)])
    assert files[1] == VolumeFile("parity.00001", CHUNK, CHUNK, range(1, 2))


@pytest.mark.parametrize(("stripes", "size"), [(1, 2 * CHUNK), (2, CHUNK), (3, 3 * CHUNK)])
def test_a_parity_volume_of_other_chunks_or_another_size_is_refused(
    stripes: int, size: int
) -> None:
    cut = volumes(2 * CHUNK, CHUNK)
    check_volumes(WHERE, payload(3 * CHUNK), cut, [parity(1, 2, 2 * CHUNK)])
    with pytest.raises(MalformedError, match=r"parity\.00001 does not hold one chunk for each"):
        check_volumes(WHERE, payload(3 * CHUNK), cut, [parity(1, stripes, size)])


def test_more_volumes_of_both_kinds_than_the_code_has_points_for_are_refused() -> None:
    cut = volumes(*[CHUNK] * (MAX_VOLUMES_WITH_PARITY - 1))
    whole = payload(CHUNK * len(cut))
    sums = [parity(number, 1, CHUNK) for number in (1, 2)]
    check_volumes(WHERE, whole, cut, sums[:1])
    with pytest.raises(MalformedError, match="over 255 volumes of both kinds"):
        check_volumes(WHERE, whole, cut, sums)
