"""Places to run a command in: with no network, and on a host that lacks what a bare one lacks."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path


@cache
def no_network() -> tuple[str, ...]:
    """A command's prefix that takes every network away; empty where the kernel refuses that."""
    return _allowed("unshare", "-rn")


def bare_host(scratch: Path) -> tuple[str, ...]:
    """The same, on a host without libgomp, ``ensurepip`` and ``venv``, as a bare Debian is."""
    prefix = _allowed("unshare", "-rnm")
    if not prefix:
        return ()
    empty_folder, empty_file = scratch / "empty", scratch / "nothing"
    empty_folder.mkdir(parents=True)
    empty_file.touch()
    stdlib = Path(sysconfig.get_path("stdlib"))
    modules = [stdlib / name for name in ("ensurepip", "venv") if (stdlib / name).is_dir()]
    script = "; ".join(
        [
            *(f"mount --bind '{empty_folder}' '{path}' || exit 99" for path in modules),
            *(f"mount --bind '{empty_file}' '{path}' || exit 99" for path in _system_libgomp()),
            'exec "$@"',
        ]
    )
    return (*prefix, "sh", "-c", script, "sh")


def _system_libgomp() -> set[Path]:
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if ldconfig is None:
        return set()
    listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    lines = (line for line in listed.splitlines() if "libgomp.so.1 " in line)
    return {Path(line.rpartition("=> ")[2]).resolve() for line in lines}


def _allowed(*prefix: str) -> tuple[str, ...]:
    done = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if done.returncode == 0 else ()
