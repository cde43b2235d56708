"""``setup.sh``: from a medium and a bare Python to airpack, or to one clear sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.conftest import Carried, Host, bare_environment
from support.bundles import flip_bit
from support.hosts import in_small_disk
from support.sandbox import bare_host, no_network

from packager.store.digests import file_digest


@pytest.fixture
def medium(carried: Carried, tmp_path: Path) -> Path:
    """A copy of the medium that may be damaged."""
    copy = tmp_path / "medium"
    shutil.copytree(carried.medium, copy)
    return copy


@pytest.fixture
def host(medium: Path, tmp_path: Path) -> Host:
    """A host without a network, at the medium."""
    return Host((), bare_environment(tmp_path), medium, no_network())


def set_up(host: Host, target: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return host.run("sh", "setup.sh", target, code=code)


def test_it_needs_neither_venv_nor_ensurepip_nor_libgomp(carried: Carried, tmp_path: Path) -> None:
    bare = Host((), bare_environment(tmp_path), tmp_path, bare_host(tmp_path / "scratch"))
    bare.run("sh", carried.medium / "setup.sh", tmp_path / "airpack")

    airpack = tmp_path / "airpack" / "bin" / "airpack"
    bare.run(airpack, "install", carried.medium, "--pub", carried.key)
    answer = bare.run(airpack, "run", "tiny-kjv", "In the beginning", "--max-tokens", "8").stdout

    assert answer.strip()


def test_it_says_what_to_do_next(medium: Path, host: Host, tmp_path: Path) -> None:
    said = set_up(host, tmp_path / "airpack").stdout
    assert f"{tmp_path / 'airpack'}/bin/airpack install {medium}" in said


def test_a_second_run_renews_the_environment(host: Host, tmp_path: Path) -> None:
    set_up(host, tmp_path / "airpack")
    module = next((tmp_path / "airpack").glob("lib/python3*/site-packages/packager/errors.py"))
    module.write_text("raise SystemExit(7)\n")
    set_up(host, tmp_path / "airpack")
    host.run(tmp_path / "airpack" / "bin" / "airpack", "--version")


def test_it_leaves_a_record_of_the_wheels_and_none_where_it_failed(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    set_up(host, tmp_path / "airpack")
    record = tmp_path / "airpack" / "lib" / "airpack" / "requirements.txt"
    assert record.read_bytes() == next(medium.glob("requirements-*.txt")).read_bytes()
    packages = next((tmp_path / "airpack").glob("lib/python3*/site-packages"))
    next(packages.glob("click-*.dist-info/RECORD")).unlink()  # pip cannot replace it
    set_up(host, tmp_path / "airpack", code=1)
    assert not record.exists()


def test_a_damaged_wheel_is_replaced_by_its_copy_in_the_payload(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    for wheel in medium.glob("*.whl"):
        flip_bit(wheel, 1000)
    (medium / "libgomp.so.1").unlink()
    needed = next(medium.glob("requirements-*.txt")).read_text().splitlines()
    said = set_up(host, tmp_path / "airpack").stderr
    assert said.count("taking the copy in the payload") == len(needed) + 2  # pip, libgomp.so.1
    host.run(tmp_path / "airpack" / "bin" / "airpack", "--version")


def test_a_wheel_damaged_in_both_places_is_refused_and_nothing_is_left(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    wheel = next(medium.glob("click-*.whl"))
    flip_bit(wheel, 1000)
    (medium / "payload.00001").unlink()
    said = set_up(host, tmp_path / "airpack", code=1).stderr
    assert f"error: {wheel.name}: damaged" in said
    assert not (tmp_path / "airpack").exists()


@pytest.mark.parametrize("size", ["200k", "12m"])
def test_99_a_full_disk_is_not_said_to_be_a_damaged_medium(medium: Path, size: str) -> None:
    disk = medium.parent / "disk"
    disk.mkdir()
    done = in_small_disk(disk, size, f'cd "{medium}" && sh setup.sh "$PLACE/airpack"')
    assert done.returncode == 1
    assert "/disk/airpack/setup: no space left\ntry: free some there" in done.stderr
    assert "damaged" not in done.stderr


def test_a_folder_with_something_else_in_it_is_left_alone(host: Host, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    said = set_up(host, tmp_path / "precious", code=1).stderr
    assert "exists and is not a virtual environment" in said
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]


def test_a_python_without_wheels_is_named_and_nothing_is_left(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    sums = (medium / "SHA256SUMS").read_text()
    (medium / "SHA256SUMS").write_text(sums.replace("requirements-3.", "requirements-9."))
    for index in ("bundle.json", "spare.bundle.json"):  # which says otherwise
        (medium / index).unlink()
    said = set_up(host, tmp_path / "airpack", code=1).stderr
    assert "error: no Python that this bundle has wheels for; it has them for: 9." in said
    assert not (tmp_path / "airpack").exists()


def test_a_wrapper_around_python_does_not_lead_into_the_system(host: Host, tmp_path: Path) -> None:
    real = shutil.which("python3", path=host.environment["PATH"])
    wrapper = tmp_path / "bin" / "python3"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    wrapper.chmod(0o755)
    path = f"{wrapper.parent}:{host.environment['PATH']}"
    wrapped = Host((), {**host.environment, "PATH": path}, host.folder, host.prefix)

    set_up(wrapped, tmp_path / "airpack")

    site_packages = next((tmp_path / "airpack").glob("lib/python3*/site-packages"))
    assert (site_packages / "packager").is_dir()
    host.run(tmp_path / "airpack" / "bin" / "airpack", "--version")


def test_python_on_the_medium_runs_neither_in_setup_nor_in_airpack(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    (medium / "click.py").write_text("import os; os._exit(0)\n")
    shell = {**host.environment, "PYTHONPATH": ":/opt/lib", "PIP_TARGET": str(tmp_path / "other")}
    odd = Host((), shell, medium, host.prefix)
    target = tmp_path / "it's a dir" / "air pack"

    said = set_up(odd, target).stdout
    link = tmp_path / "link"
    link.symlink_to(target / "bin" / "airpack")

    assert odd.run(link, "--version").stdout.startswith("airpack ")
    assert "_AIRPACK_COMPLETE" in odd.run(link, "completion", "bash").stdout
    command = next(line for line in said.splitlines() if line.endswith(" trust add KEY.pub"))
    odd.run("sh", "-c", command.replace("trust add KEY.pub", "--version"))
    assert not (tmp_path / "other").exists()


def test_a_pipe_or_a_link_named_as_a_wheel_is_not_read(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    first, second, *_ = sorted(medium.glob("*.whl"))
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.symlink_to("/dev/zero")
    os.mkfifo(medium / "payload.zzzzz")
    said = set_up(host, tmp_path / "airpack").stderr
    assert said.count("taking the copy in the payload") == 2


def test_a_line_break_in_the_directory_is_refused(host: Host, tmp_path: Path) -> None:
    said = set_up(host, tmp_path / "a\nb", code=1).stderr
    assert "holds a line break" in said
    assert not (tmp_path / "a\nb").exists()


@pytest.mark.parametrize("line", ["../evil.whl", "a b.whl", "$(id).whl"])
def test_damaged_sums_give_way_to_their_second_copy(
    medium: Path, host: Host, tmp_path: Path, line: str
) -> None:
    shutil.copy(medium / "SHA256SUMS", medium / "spare.SHA256SUMS")
    with (medium / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {line}\n")
    assert "taking its second copy" in set_up(host, tmp_path / "airpack").stderr
    (medium / "spare.SHA256SUMS").unlink()
    said = set_up(host, tmp_path / "again", code=1).stderr
    assert "SHA256SUMS: missing or damaged" in said
    assert not (tmp_path / "again").exists()


def _digit(line: str) -> str:
    return ("1" if line[0] == "0" else "0") + line[1:]


def _name(line: str) -> str:
    return line.replace("click", "clock")


def _kind(line: str) -> str:
    return line.replace(".whl", ".whm")


@pytest.mark.parametrize("change", [_digit, _name, _kind])
def test_sums_with_a_wrong_line_give_way_to_their_second_copy(
    medium: Path, host: Host, tmp_path: Path, change: Callable[[str], str]
) -> None:
    lines = (medium / "SHA256SUMS").read_text().splitlines(keepends=True)
    changed = [change(line) if "  click-" in line else line for line in lines]
    assert changed != lines
    (medium / "SHA256SUMS").write_text("".join(changed))
    assert "taking its second copy" in set_up(host, tmp_path / "airpack").stderr
    host.run(tmp_path / "airpack" / "bin" / "airpack", "--version")


def test_a_wrong_digest_of_the_index_in_the_sums_is_no_matter(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    lines = (medium / "SHA256SUMS").read_text().splitlines(keepends=True)
    changed = [_digit(line) if line.endswith("  bundle.json\n") else line for line in lines]
    (medium / "SHA256SUMS").write_text("".join(changed))
    assert "second copy" not in set_up(host, tmp_path / "airpack").stderr


def test_sums_that_hold_are_not_given_up_for_a_second_copy_that_fits_other_wheels(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    """What somebody could bring about who cannot sign: all but the signed sums is theirs."""
    wheel = next(medium.glob("click-*.whl"))
    before = file_digest(wheel).hex
    wheel.write_bytes(b"theirs")
    for name in ("bundle.json", "spare.bundle.json", "spare.SHA256SUMS"):
        data = (medium / name).read_bytes()
        (medium / name).write_bytes(data.replace(before.encode(), file_digest(wheel).hex.encode()))
    (medium / "payload.00001").unlink()
    said = set_up(host, tmp_path / "airpack", code=1).stderr
    assert f"error: {wheel.name}: damaged" in said
    assert "second copy" not in said
    assert not (tmp_path / "airpack").exists()


def test_the_second_copy_of_the_script_does_the_same(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    (medium / "setup.sh").unlink()
    host.run("sh", "spare.setup.sh", tmp_path / "airpack")
    host.run(tmp_path / "airpack" / "bin" / "airpack", "--version")


def test_of_a_long_payload_only_the_begin_is_read_for_a_wheel(
    medium: Path, host: Host, tmp_path: Path
) -> None:
    next(medium.glob("click-*.whl")).unlink()
    with (medium / "payload.00002").open("wb") as stream:
        stream.truncate(1 << 42)  # hours, if it were read
    set_up(host, tmp_path / "airpack")
