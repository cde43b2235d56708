from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosts import child_env, in_small_disk, strace

from packager.errors import HostError, IntegrityError
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    make_directory,
    open_regular,
    point_symlink,
    read_capped,
    write_file,
)
from packager.store.open_files import allow_open_files

WRITE = """
import sys
from pathlib import Path
from packager.errors import AirpackError
from packager.store.atomic import point_symlink, write_file
try:
    if sys.argv[2] == "link":
        point_symlink(Path(sys.argv[1]), "new")
    else:
        write_file(Path(sys.argv[1]), b"n" * 100_000)
except AirpackError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["file"]


def test_99_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    script = (
        'printf old >"$PLACE/file"; '
        f"{sys.executable} -c '{WRITE}' \"$PLACE/file\" file; "
        'printf "%s " $? "$(cat "$PLACE/file")" $(ls -A "$PLACE")'
    )
    done = in_small_disk(tmp_path, "64k", script)
    assert done.stdout == "1 old file "
    assert done.stderr.startswith("NoSpaceError: ")
    assert done.stderr.endswith("file: no space left\n")


@pytest.mark.parametrize(
    ("what", "call", "fault", "error"),
    [
        ("file", "fsync", "EIO", "IntegrityError"),
        ("file", "rename", "ENOSPC", "NoSpaceError"),
        ("link", "rename", "EDQUOT", "NoSpaceError"),
    ],
)
def test_100_a_refused_call_leaves_the_old_state_and_no_temporary(
    tmp_path: Path, what: str, call: str, fault: str, error: str
) -> None:
    path = tmp_path / "thing"
    if what == "link":
        path.symlink_to("old")
    else:
        path.write_text("old")
    front = strace("-o", os.devnull, "-e", f"inject={call}:error={fault}")
    done = subprocess.run(
        [*front, sys.executable, "-c", WRITE, str(path), what],
        env=child_env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr.startswith(f"{error}: {tmp_path}"), done.stderr
    assert (str(path.readlink()) if what == "link" else path.read_text()) == "old"
    assert names(tmp_path) == ["thing"]


@pytest.mark.parametrize("trap", ["symlink", "fifo", "file"])
def test_what_lies_under_the_temporary_name_is_never_written_into(
    tmp_path: Path, trap: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    temporary = tmp_path / f"{TEMPORARY_PREFIX}{os.getpid()}-file"
    if trap == "symlink":
        temporary.symlink_to(victim)
    elif trap == "fifo":
        os.mkfifo(temporary)
    else:
        temporary.write_text("a dead process's")
        temporary.chmod(0o666)
    write_file(tmp_path / "file", b"new", mode=0o600)
    assert victim.read_text() == "precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["file", "victim"]


def test_55_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to("secret")
    with pytest.raises(IntegrityError, match="link: not a regular file"):
        read_capped(tmp_path / "link", 100)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_56_what_is_no_file_is_refused_without_blocking(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(IntegrityError, match=f"{path.name}: not a regular file"):
        read_capped(path, 100)


def test_a_file_above_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_capped(tmp_path / "file", 5) == b"12345"
    with pytest.raises(IntegrityError, match="larger than the limit of 4 bytes"):
        read_capped(tmp_path / "file", 4)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="gone: no such file"), open_regular(tmp_path / "gone"):
        pass


def test_a_link_points_to_the_new_target_and_nothing_else_is_left(tmp_path: Path) -> None:
    point_symlink(tmp_path / "current", "1")
    point_symlink(tmp_path / "current", "2")
    assert str((tmp_path / "current").readlink()) == "2"
    assert names(tmp_path) == ["current"]


def test_a_directory_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"file.*: (not a directory|file exists)"):
        make_directory(tmp_path / "file" / "below")


def test_more_open_files_are_allowed_up_to_what_the_host_gives() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_open_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 300
        if hard != resource.RLIM_INFINITY:
            with pytest.raises(HostError, match=f"this host allows {hard}"):
                allow_open_files(hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
