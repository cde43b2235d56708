"""Who gets which volume, and what a filesystem takes: decided before anything is written."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE

from packager.errors import NoSpaceError
from packager.format.volumes import VolumeFile
from packager.isolated.spread import Medium, deal
from packager.store.filesystem import MARGIN, Filesystem, mount_kind

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 8:1 / /media/my\\040stick rw,nosuid - vfat /dev/sda1 rw,fmask=0022
41 22 8:2 / /media rw shared:7 master:2 - tmpfs tmpfs rw
42 22 8:3 / /media/other rw - ext4 /dev/sdb1 rw
43 42 8:4 / /media/other rw - exfat /dev/sdc1 rw
"""


def volume(number: int, size: int) -> VolumeFile:
    return VolumeFile(f"payload.{number:05d}", size, CHUNK_SIZE, range(number, number + 1))


def medium(number: int, free: int, *, kind: str = "ext4", lacking: int = 0, **there: int) -> Medium:
    """``there`` are bytes by ``partN`` and ``wholeN``, of volume N."""
    held = {f"payload.{int(name[5:]) if name.startswith('whole') else int(name[4:]):05d}": size
            for name, size in there.items()}  # fmt: skip
    whole = {f"payload.{int(name[5:]):05d}" for name in there if name.startswith("whole")}
    place = Filesystem(kind, number, free + MARGIN, 4096, read_only=False)
    return Medium(Path(f"/media/{number}/tiny"), place, lacking, held, frozenset(whole))


@given(
    st.lists(st.integers(1, 1 << 20), min_size=1, max_size=8),
    st.lists(st.integers(0, 3 << 20), min_size=1, max_size=3),
)
def test_each_volume_goes_where_it_fits_or_is_left(sizes: list[int], room: list[int]) -> None:
    volumes = [volume(number, size) for number, size in enumerate(sizes, 1)]
    plan = deal(volumes, [medium(number, free) for number, free in enumerate(room)], 0)
    dealt = [v for share in plan.shares for v in share.volumes]
    assert sorted([*plan.left, *(v.name for v in dealt)]) == [v.name for v in volumes]
    rest = []
    for share, free in zip(plan.shares, room, strict=True):
        assert list(share.volumes) == [v for v in volumes if v in share.volumes]
        rest.append(free - sum(-(-v.size // 4096) * 4096 for v in share.volumes))
    assert min(rest) >= 0
    assert all(-(-v.size // 4096) * 4096 > max(rest) for v in volumes if v.name in plan.left)


def test_what_is_there_stays_and_a_part_that_no_longer_fits_makes_room() -> None:
    volumes = [volume(n, 1 << 20) for n in (1, 2, 3)]
    first = medium(1, 1 << 20, part3=1 << 19)
    second = medium(2, 0, whole1=1 << 20)
    plan = deal(volumes, [first, second], 0)
    assert [[v.name[-1] for v in share.volumes] for share in plan.shares] == [["3"], ["1"]]
    assert plan.left == ("payload.00002",)
    tight = deal(volumes, [medium(1, 1 << 18, part3=1 << 19), medium(2, 1 << 20)], 0)
    assert [[v.name[-1] for v in share.volumes] for share in tight.shares] == [[], ["1"]]
    freed = deal([volume(1, 1 << 19), volume(3, 1 << 20)], [medium(1, 0, part3=1 << 19)], 0)
    assert [v.name[-1] for v in freed.shares[0].volumes] == ["1"]


def test_a_share_says_what_is_still_to_be_written_and_what_room_stays() -> None:
    volumes = [volume(n, 1 << 20) for n in (1, 2, 3)]
    first = medium(1, 2 << 20, lacking=4096, part2=1 << 18, whole1=1 << 20)
    shares = deal(volumes, [first, medium(2, 1 << 20)], 5000).shares
    assert [[v.name[-1] for v in share.volumes] for share in shares] == [["1", "2", "3"], []]
    assert [share.size for share in shares] == [(3 << 20) + 5000, 5000]
    assert [share.missing for share in shares] == [4096 + (3 << 18) + (1 << 20), 0]
    assert [share.room for share in shares] == [(1 << 18) - 4096, 1 << 20]


def test_two_directories_on_one_device_share_its_room() -> None:
    volumes = [volume(n, 1 << 20) for n in (1, 2)]
    plan = deal(volumes, [medium(1, 1 << 20), medium(1, 1 << 20)], 0)
    assert plan.left == ("payload.00002",)


def test_a_volume_beyond_what_fat_takes_is_refused_and_one_byte_less_is_not() -> None:
    large, fits = volume(1, 1 << 32), volume(1, (1 << 32) - 1)
    for kind in ("vfat", "msdos"):
        with pytest.raises(NoSpaceError, match=rf"payload.00001 is 4294967296 bytes.*{kind}"):
            deal([large], [medium(1, 1 << 33), medium(2, 1 << 33, kind=kind)], 0)
        assert deal([fits], [medium(1, 1 << 33, kind=kind)], 0).left == ()
    assert deal([large], [medium(1, 1 << 33, kind="exfat")], 0).left == ()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/media/my stick/x", "vfat"),
        ("/media/my stick", "vfat"),
        ("/media/my stick 2", "tmpfs"),
        ("/media/other/x", "exfat"),
        ("/home/a", "ext4"),
    ],
)
def test_the_deepest_mount_point_above_a_path_says_its_filesystem(path: str, kind: str) -> None:
    assert mount_kind(MOUNTS, PurePath(path)) == kind
    assert mount_kind("", PurePath(path)) == ""
