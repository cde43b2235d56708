"""From files to volumes: the bytes, the digests, and files that will not hold still."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import flip_bit
from support.hosts import child_env, in_small_disk
from support.watching import WatchedTask, Watching

from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.errors import DigestMismatchError, HostError, IntegrityError
from packager.format.digest import Digest
from packager.format.volumes import MIN_CHUNK_SIZE
from packager.progress import Silent
from packager.store.digests import file_digest

KIB64 = MIN_CHUNK_SIZE


def member(folder: Path, path: str, data: bytes) -> Member:
    source = folder / hashlib.sha256(path.encode()).hexdigest()
    source.write_bytes(data)
    return Member(path, source, len(data), Digest.of(data))


def tar_of(contents: dict[str, bytes]) -> bytes:
    """The payload as Python's own tarfile writes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in contents.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
        size = archive.offset
    return stream.getvalue()[:size] + bytes(1024)


def packed(folder: Path, contents: dict[str, bytes], volume_size: int | None, out: Path) -> bytes:
    """Pack, check every digest against the bytes on the disk, and return the payload."""
    members = [member(folder, path, data) for path, data in contents.items()]
    plan = plan_payload(members, volume_size)
    written = write_payload(plan, out, Silent())
    data = b"".join((out / volume.name).read_bytes() for volume in plan.volumes)
    size = written.payload.chunk_size
    assert written.payload.size == len(data) == plan.layout.size
    assert written.payload.chunks == tuple(
        Digest.of(data[start : start + size]) for start in range(0, len(data), size)
    )
    assert written.volume_digests == {v.name: file_digest(out / v.name) for v in plan.volumes}
    assert sorted(path.name for path in out.iterdir()) == [v.name for v in plan.volumes]
    for file in plan.files:
        assert data[file.offset : file.end] == contents[file.path]
        assert file.digest == Digest.of(contents[file.path])
    return data


CONTENTS = {
    "setup/empty": b"",
    "setup/block": b"b" * 512,
    "models/m/v/" + "longer/" * 25 + "name.txt": b"long\n",
    "models/m/v/größe.bin": os.urandom(3 * KIB64 + 17),
    "models/m/v/model.gguf": os.urandom((9 << 20) + 3),  # more than two buffers
}


def test_payload_is_the_tar_that_tarfile_writes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    assert packed(tmp_path, CONTENTS, None, out) == tar_of(CONTENTS)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, KIB64 - 512, KIB64, 70_001]), max_size=8),
    volume=st.one_of(st.none(), st.integers(KIB64, 4 * KIB64)),
)
def test_any_sizes_in_any_volumes_make_that_tar(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], volume: int | None
) -> None:
    folder, out = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("out")
    contents = {f"f/{number}": os.urandom(size) for number, size in enumerate(sizes)}

    assert packed(folder, contents, volume, out) == tar_of(contents)


def test_stock_tar_gives_every_file_back(tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    out.mkdir()
    back.mkdir()
    packed(tmp_path, CONTENTS, 2 << 20, out)

    subprocess.run(f"cat '{out}'/payload.* | tar -x -f - -C '{back}'", shell=True, check=True)

    found = {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()}
    assert found == CONTENTS


@pytest.mark.parametrize("size", [99, 101])
def test_58_member_of_another_size_is_named(tmp_path: Path, size: int) -> None:
    plan = plan_payload([member(tmp_path, "a", bytes(100))], None)
    plan.members[0].source.write_bytes(bytes(size))

    with pytest.raises(IntegrityError, match=f"{plan.members[0].source}: changed while"):
        write_payload(plan, tmp_path, Silent())


@pytest.mark.parametrize("position", [0, 5 << 20, (9 << 20) - 1])
def test_58_one_bit_changed_since_it_was_recorded_is_noticed(tmp_path: Path, position: int) -> None:
    members = [member(tmp_path, "a", bytes(9 << 20)), member(tmp_path, "b", b"b")]
    source = members[0].source
    data = bytearray(9 << 20)
    data[position] = 1
    source.write_bytes(data)

    with pytest.raises(DigestMismatchError, match=f"{source}: changed while"):
        write_payload(plan_payload(members, None), tmp_path, Silent())


@pytest.mark.parametrize("position", [0, 5 << 20, (9 << 20) - 1])
def test_58_one_bit_changed_since_it_was_packed_does_not_get_into_the_parity(
    tmp_path: Path, position: int
) -> None:
    plan = plan_payload([member(tmp_path, "a", os.urandom(9 << 20))], 4 << 20, 1)
    written = write_payload(plan, tmp_path, Silent())
    flip_bit(plan.members[0].source, position)

    with pytest.raises(IntegrityError, match=r"payload\.0000\d: what is in it changed"):
        write_parity(plan, written.payload, tmp_path, Silent())


def test_58_member_cut_short_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = member(tmp_path, "a", bytes(12 << 20))

    def cut(_task: WatchedTask, _amount: int) -> None:
        os.truncate(big.source, 5 << 20)

    monkeypatch.setattr(WatchedTask, "advance", cut)
    with pytest.raises(IntegrityError, match=f"{big.source}: changed while"):
        write_payload(plan_payload([big], None), tmp_path, Watching())


def test_55_member_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    plan = plan_payload([member(tmp_path, "a", b"data")], None)
    source = plan.members[0].source
    source.rename(tmp_path / "elsewhere")
    source.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IntegrityError, match="not a regular file"):
        write_payload(plan, tmp_path, Silent())


def test_member_that_is_gone_is_named(tmp_path: Path) -> None:
    plan = plan_payload([member(tmp_path, "a", b"data")], None)
    plan.members[0].source.unlink()

    with pytest.raises(HostError, match=f"{plan.members[0].source}: no such file"):
        write_payload(plan, tmp_path, Silent())


PACK = """\
import resource, sys
from pathlib import Path
from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.errors import AirpackError
from packager.progress import Silent
from packager.store.digests import file_digest
source, out = map(Path, sys.argv[1:])
plan = plan_payload([Member("a", source, source.stat().st_size, file_digest(source))], None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    write_payload(plan, out, Silent())
except AirpackError as error:
    sys.exit(f"{error.exit_code} {type(error).__name__}: {error.message}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_member_is_packed_in_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as stream:
        stream.truncate(150 << 20)
    (tmp_path / "out").mkdir()

    done = subprocess.run(
        [sys.executable, "-c", PACK, source, tmp_path / "out"],
        env=child_env(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(done.stdout) < 40 << 10  # KiB
    (tmp_path / "out" / "payload.00001").unlink()


def test_99_full_disk_is_said_so_with_the_volume(tmp_path: Path) -> None:
    source, disk = tmp_path / "large", tmp_path / "disk"
    disk.mkdir()
    source.write_bytes(bytes(9 << 20))

    script = f"exec '{sys.executable}' -c '{PACK}' '{source}' '{disk}'"
    done = in_small_disk(disk, "5m", script)

    assert done.returncode == 1
    assert done.stderr.startswith("13 NoSpaceError")
    assert f"{disk / 'payload.00001'}: no space left" in done.stderr
