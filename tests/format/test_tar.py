"""The payload's layout is a tar that GNU tar and Python read, whatever the path and the size."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from packager.format.tar import BLOCK_SIZE, END_SIZE, TarLayout, plan_tar

LONG = "models/" + "directory/" * 20 + "größe-" + "x" * 120 + ".bin"
FILES = {
    "models/tiny/config.json": b"{}\n",
    "models/tiny/empty": b"",
    "models/tiny/block": bytes(range(256)) * 2,
    "models/tiny/" + "n" * 88: b"a name of 100 bytes",
    "models/tiny/" + "n" * 89: b"a name of 101 bytes",
    LONG: b"long" * 1000,
}
GIB = 1 << 30


def write_tar(path: Path, layout: TarLayout, contents: dict[str, bytes]) -> None:
    """A file of the layout's size: headers and ``contents`` in their places, else a hole."""
    with path.open("wb") as stream:
        stream.truncate(layout.size)
        for entry in layout.entries:
            stream.seek(entry.header_offset)
            stream.write(entry.header)
            stream.write(contents.get(entry.path, b""))


def planned(contents: dict[str, bytes]) -> TarLayout:
    return plan_tar((path, len(data)) for path, data in contents.items())


def found_below(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_gnu_tar_unpacks_what_we_lay_out(tmp_path: Path) -> None:
    write_tar(tmp_path / "payload", planned(FILES), FILES)
    out = tmp_path / "out"
    out.mkdir()
    command = ["tar", "--extract", "--file", tmp_path / "payload", "--directory", out]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    assert found_below(out) == FILES


def test_gnu_tar_unpacks_volumes_from_a_pipe(tmp_path: Path) -> None:
    write_tar(tmp_path / "payload", planned(FILES), FILES)
    data = (tmp_path / "payload").read_bytes()
    (tmp_path / "payload.00001").write_bytes(data[:4096])
    (tmp_path / "payload.00002").write_bytes(data[4096:])
    (tmp_path / "out").mkdir()
    command = "cat payload.0* | tar x -C out"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert found_below(tmp_path / "out") == FILES


def test_python_reads_each_file_at_the_offset_we_gave_it(tmp_path: Path) -> None:
    layout = planned(FILES)
    write_tar(tmp_path / "payload", layout, FILES)
    with tarfile.open(tmp_path / "payload") as archive:
        members = archive.getmembers()
        assert [(m.name, m.size, m.offset_data) for m in members] == [
            (entry.path, entry.size, entry.offset) for entry in layout.entries
        ]
        assert {(m.mode, m.uid, m.gid, m.mtime, m.isreg()) for m in members} == {
            (0o644, 0, 0, 0, True)
        }


def test_a_file_over_8_gib_is_read_by_both(tmp_path: Path) -> None:
    size = 8 * GIB + 5
    layout = plan_tar([("a", 8 * GIB - 1), (LONG, size), ("last", 3)])
    write_tar(tmp_path / "payload", layout, {"last": b"end"})
    with tarfile.open(tmp_path / "payload") as archive:
        sizes = [(member.name, member.size) for member in archive]
        assert archive.extractfile("last").read() == b"end"  # type: ignore[union-attr]
    assert sizes == [("a", 8 * GIB - 1), (LONG, size), ("last", 3)]
    command = ["tar", "--list", "--verbose", "--seek", "--quoting-style=literal", "-f",
               tmp_path / "payload"]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, check=True).stdout.decode().splitlines()
    assert [int(line.split()[2]) for line in lines] == [8 * GIB - 1, size, 3]
    assert lines[1].endswith(LONG)


@given(
    st.lists(st.tuples(st.from_regex(r"[a-zé]{1,150}", fullmatch=True), st.integers(0, 1 << 50)))
)
def test_entries_follow_each_other_in_whole_blocks(files: list[tuple[str, int]]) -> None:
    layout = plan_tar(files)
    position = 0
    for entry, (path, size) in zip(layout.entries, files, strict=True):
        assert (entry.path, entry.size, entry.header_offset) == (path, size, position)
        assert entry.offset % BLOCK_SIZE == entry.end % BLOCK_SIZE == 0
        assert entry.size <= entry.end - entry.offset < entry.size + BLOCK_SIZE
        position = entry.end
    assert layout.size == position + END_SIZE


def test_headers_are_the_same_bytes_on_every_host() -> None:
    """A host computes offsets from headers that another Python made; these bytes are contract."""
    layout = plan_tar([("models/tiny/config.json", 3), (LONG, 9 * GIB)])
    digests = [hashlib.sha256(entry.header).hexdigest() for entry in layout.entries]
    assert digests == [
        "70f47bcb5c6994226ce9513d2f656914252a5f5dccf5be687b73462ee8d46892",
        "a2c7c2f0ea760417212352e2f77c7c7a1fd3c54d8c85a364a7b52e08a4cc5c65",
    ]
    assert [len(entry.header) for entry in layout.entries] == [512, 1536]
