"""The OpenMP runtime that travels: taken out of a wheel, renamed, and loaded."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from packager.connected.provisions.carried import Provisions
from packager.connected.provisions.libgomp import LIBGOMP_NAME, extract_libgomp, rename_soname
from packager.errors import AirpackError

LOAD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
assert library.omp_get_max_threads() > 0
# A library that asks for the name finds this one loaded, and looks no further.
assert ctypes.CDLL("libgomp.so.1")._handle == library._handle
print([line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line][0])
"""


def wheel_with(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_the_library_loads_under_the_name_that_is_asked_for(provisions: Provisions) -> None:
    library = provisions.libraries / LIBGOMP_NAME
    command = [sys.executable, "-c", LOAD, library]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == library.resolve()


def test_only_the_name_is_changed(tmp_path: Path) -> None:
    library = b"\x7fELF\0libgomp-a34b.so.1.0.0\0tail"
    member = {"pykdtree.libs/libgomp-a34b.so.1.0.0": library}

    path = extract_libgomp(wheel_with(tmp_path / "w.whl", **member), tmp_path / "new" / "lib")

    assert path.read_bytes() == b"\x7fELF\0libgomp.so.1" + bytes(10) + b"tail"
    assert [entry.name for entry in path.parent.iterdir()] == [LIBGOMP_NAME]


@pytest.mark.parametrize("library", [b"no name", b"old.so\0old.so\0"])
def test_a_name_that_is_not_there_once_is_refused(library: bytes) -> None:
    with pytest.raises(AirpackError, match="cannot set its name"):
        rename_soname(library, "old.so", "new.so")


def test_a_longer_name_is_refused() -> None:
    with pytest.raises(AirpackError, match="cannot set its name"):
        rename_soname(b"a.so\0", "a.so", "longer.so")


def test_wheel_without_the_library_is_named(tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path / "w.whl", **{"evil/libgomp-1.so.1": b"x"})
    with pytest.raises(AirpackError, match=r"w\.whl: holds no libgomp"):
        extract_libgomp(wheel, tmp_path / "lib")
    assert not (tmp_path / "lib" / LIBGOMP_NAME).exists()


def test_a_truncated_wheel_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "w.whl"
    wheel.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(AirpackError, match=r"w\.whl: not a wheel"):
        extract_libgomp(wheel, tmp_path / "lib")
