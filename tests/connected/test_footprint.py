"""What a bundle takes on its disk and its media, said and refused before it is written."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.disks import on_fat, read_only
from support.hosts import in_small_disk

from packager.connected.packing.footprint import USABLE, Footprint, check_place, check_room
from packager.connected.packing.layout import cut_payload
from packager.errors import HostError, NoSpaceError
from packager.format.volumes import VolumeFile
from packager.isolated.spread import Medium, deal
from packager.store.filesystem import MARGIN, Filesystem, read_filesystem

GIB = 1 << 30
SMALL = 60 << 20

CHECK = """
import sys
from pathlib import Path
from packager.connected.packing.footprint import check_place
from packager.errors import AirpackError
try:
    check_place(Path(sys.argv[1]), int(sys.argv[2]) or None)
except AirpackError as error:
    print(error.exit_code, error.message)
    print(error.hint)
"""


def footprint(payload: int, parity: int = 0, volume_size: int | None = None) -> Footprint:
    return Footprint(cut_payload(payload, volume_size, parity).sizes, parity, (SMALL,))


def left_by_copy(need: Footprint, count: int, capacity: int) -> int:
    """How many volumes ``airpack copy`` leaves over with so many media of that capacity."""
    place = Filesystem("exfat", 0, int(capacity * USABLE) + MARGIN, 1, read_only=False)
    media = [
        Medium(Path(f"/{n}"), Filesystem(**{**vars(place), "device": n}), SMALL, {}, frozenset())
        for n in range(count)
    ]
    volumes = [
        VolumeFile(f"payload.{number:05d}", size, 1 << 22, range(number, number + 1))
        for number, size in enumerate(need.volumes, start=1)
    ]
    return len(deal(volumes, media, SMALL).left)


@given(
    st.integers(1 << 20, 3 << 40),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(1 << 28, 20 * GIB)),
)
def test_the_media_that_it_calls_enough_are_those_that_copy_needs(
    payload: int, parity: int, volume_size: int | None
) -> None:
    assume(payload < (250 if parity else 9000) * (volume_size or 4 * GIB) * 0.9)
    need = footprint(payload, parity, volume_size)

    media = need.media()
    assert media[0].count == 1
    assert [m.count for m in media] == sorted({m.count for m in media})
    for medium in media:
        if medium.count <= 20:
            assert left_by_copy(need, medium.count, medium.capacity) == 0
            assert medium.count == 1 or left_by_copy(need, medium.count - 1, medium.capacity) > 0


def test_41_gb_take_three_sticks_of_16_gb_where_volumes_for_fat32_would_take_four() -> None:
    auto, largest = footprint(41 * 10**9), footprint(41 * 10**9, volume_size=4 * GIB)

    assert [str(m) for m in auto.media()] == ["one medium of 64 GB", "2 of 32 GB", "3 of 16 GB"]
    assert [str(m) for m in largest.media()] == ["one medium of 64 GB", "2 of 32 GB", "4 of 16 GB"]


def test_it_says_what_all_media_and_each_of_them_need() -> None:
    lines = list(footprint(40 * 10**9, 2).lines())

    size = sum(cut_payload(40 * 10**9, None, 2).sizes) + SMALL
    assert lines[0].startswith(f"the bundle takes 39.3 GiB ({size} bytes): 38 volumes of up to ")
    assert lines[0].endswith(", 2 of parity, and 60 MiB of small files, which each medium gets")
    assert lines[1].startswith("a medium needs 1.04 GiB (")
    assert lines[1].endswith("all of it fits one medium of 64 GB, or 2 of 32 GB, or 3 of 16 GB")
    assert len(lines) == 2
    guessed = "\n".join(footprint(1 << 20).lines(is_exact=False))
    assert "takes about 61 MiB: one volume of 1 MiB, and" in guessed
    assert "bytes" not in guessed


def test_105_volumes_that_no_fat32_medium_takes_are_said_to_be_such() -> None:
    lines = list(footprint(20 * GIB, volume_size=8 * GIB).lines())

    assert lines[2].startswith("volumes of 8 GiB fit no FAT32 medium")
    assert len(list(footprint(20 * GIB, volume_size=4 * GIB).lines())) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [(0, ""), (4 * GIB, ""), (4 * GIB + 1, "13 {}: volumes of 4 GiB were asked for, and a file")],
)
def test_105_a_volume_size_that_the_disk_takes_no_file_of_is_refused(
    tmp_path: Path, asked: int, said: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    words = (sys.executable, "-c", CHECK, disk / "not" / "there", asked)
    done = in_small_disk(disk, "1m", on_fat(*words) + '; ls -A "$PLACE"')

    assert done.stderr == ""
    assert done.stdout.startswith(said.format(disk))
    if said:
        assert "vfat (FAT) has 4294967295 bytes at most" in done.stdout
        assert done.stdout.endswith("--volume-size auto, or build on exFAT or ext4: -o DIR\n")
    else:
        assert done.stdout == ""
    check_place(tmp_path, asked)  # this disk has no such limit


def test_101_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    words = (sys.executable, "-c", CHECK, tmp_path / "not" / "there", 0)
    done = in_small_disk(tmp_path, "1m", read_only(*words))

    assert done.stdout == f"1 {tmp_path}: is read-only\nbuild elsewhere: -o DIR\n"


@pytest.mark.parametrize("there", ["file", "link"])
def test_101_what_is_no_directory_is_refused(tmp_path: Path, there: str) -> None:
    place = tmp_path / there
    if there == "file":
        place.touch()
    else:
        place.symlink_to("nowhere")

    with pytest.raises(HostError, match=f"{place}: no directory that can be written to"):
        check_place(place / "out", None)


def test_99_a_disk_that_is_too_small_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    free = read_filesystem(tmp_path).free
    check_room(tmp_path / "out" / "demo-1.0.0", footprint(1 << 20))

    with pytest.raises(NoSpaceError, match=f"{tmp_path}/out: .* needed, .* free") as caught:
        check_room(tmp_path / "out" / "demo-1.0.0", Footprint((free, 1), 0, (1,)))
    assert "airpack copy BUNDLE MEDIUM..." in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


ROOM = """
import sys
from pathlib import Path
from packager.connected.packing.footprint import Footprint, check_room
from packager.errors import NoSpaceError
try:
    check_room(Path(sys.argv[1]) / "demo-1.0.0", Footprint((3 << 20,), 0, (1,)))
    print("fits")
except NoSpaceError:
    print("does not fit")
"""


def test_what_an_unfinished_build_left_there_counts_as_room(tmp_path: Path) -> None:
    check = f"'{sys.executable}' -c '{ROOM}' '{tmp_path}'"
    for name, said in ((".demo-1.0.0.unfinished", "fits\n"), ("other", "does not fit\n")):
        left = f"{tmp_path}/{name}"
        script = f"mkdir '{left}' && head -c 3m /dev/zero > '{left}/payload.00001' && {check}"
        done = in_small_disk(tmp_path, "5m", script)
        assert (done.stdout, done.stderr) == (said, "")


def test_103_what_another_build_renames_and_removes_meanwhile_is_no_error(tmp_path: Path) -> None:
    place = tmp_path / ".demo-1.0.0.unfinished"
    stopped = threading.Event()

    def other_build() -> None:
        while not stopped.is_set():
            place.mkdir()
            for n in range(20):
                (place / f".tmp-{n}").write_bytes(b"x")
                (place / f".tmp-{n}").rename(place / f"{n}")
            shutil.rmtree(place)

    other = threading.Thread(target=other_build)
    other.start()
    try:
        for _ in range(300):
            check_room(tmp_path / "demo-1.0.0", footprint(1 << 20))
    finally:
        stopped.set()
        other.join()
