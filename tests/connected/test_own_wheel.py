"""airpack's own wheel: what is in it, that pip takes it, and that it makes itself again."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import packager
from packager.connected.provisions.own_wheel import build_own_wheel

PACKAGE = Path(packager.__file__).parent
BUILD = """
import sys
from pathlib import Path
from packager.connected.provisions.own_wheel import build_own_wheel
import packager
print(packager.__file__)
build_own_wheel(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_own_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment into which pip installed the wheel, and that alone."""
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    command += ["--no-index", "--disable-pip-version-check", "--root-user-action", "ignore", wheel]
    subprocess.run(command, check=True)
    # Its dependencies come from this environment, after what it holds itself.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (place / "lib" / version / "site-packages" / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )
    return python


def package_files() -> dict[str, bytes]:
    return {
        f"packager/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_package_is_in_it_and_no_cache(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}

    assert {k: v for k, v in held.items() if k.startswith("packager/")} == package_files()
    info = f"airpack-{packager.__version__}.dist-info"
    assert {name for name in held if not name.startswith("packager/")} == {
        f"{info}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert b"Apache License" in held[f"{info}/licenses/LICENSE"]
    assert wheel.name == f"airpack-{packager.__version__}-py3-none-any.whl"


def test_record_lists_every_file_with_its_digest_and_size(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    (record,) = [name for name in held if name.endswith("RECORD")]

    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(held[record].decode()))}

    assert rows.pop(record) == ["", ""]
    assert rows == {
        name: [
            "sha256="
            + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
            str(len(data)),
        ]
        for name, data in held.items()
        if name != record
    }


def test_the_same_code_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    again = build_own_wheel(tmp_path / "new" / "folder")

    assert again.read_bytes() == wheel.read_bytes()
    assert list(again.parent.iterdir()) == [again]


def test_no_bytes_depend_on_how_a_host_compresses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_hidden_files_and_caches_of_a_checkout_stay_behind(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "packager"
    for name, data in package_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for junk in (".keys.py.swp", ".cache/x", "format/__pycache__/x.pyc"):
        (copy / junk).parent.mkdir(parents=True, exist_ok=True)
        (copy / junk).write_bytes(b"junk")
    monkeypatch.setattr(packager, "__file__", str(copy / "__init__.py"))

    assert build_own_wheel(tmp_path / "out").read_bytes() == wheel.read_bytes()


def test_pip_installs_it_and_the_program_runs(elsewhere: Path) -> None:
    program = elsewhere.with_name("airpack")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert packager.__version__ in done.stdout


def test_an_installed_airpack_makes_the_very_wheel_it_came_from(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [elsewhere, "-I", "-c", BUILD, tmp_path / "out"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith(str(elsewhere.parents[1]))
    assert (tmp_path / "out" / wheel.name).read_bytes() == wheel.read_bytes()
