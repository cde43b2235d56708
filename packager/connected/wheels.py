"""The wheels that cross the gap: airpack's own, its dependencies', the engine's, and pip's.

What the far side installs is what ran here: the engine and the direct dependencies are pinned
to the versions of this very environment, so the golden outputs speak of the same engine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from packager.connected.libgomp import LIBGOMP_SOURCE
from packager.connected.own_wheel import build_own_wheel
from packager.errors import AirpackError, HostError, UsageError
from packager.format.digest import Digest
from packager.format.target import Target
from packager.progress import Progress
from packager.store.digests import file_digest

ENGINE = "xllamacpp"
PIP = "pip"
_ARCHITECTURES = {"linux_x86_64": "x86_64", "linux_aarch64": "aarch64"}
_GLIBC = re.compile(r"2\.(\d{1,3})\Z")
_PYTHON = re.compile(r"3\.(\d{1,2})\Z")


@dataclass(frozen=True)
class Wheel:
    """A wheel on this disk, and what it is."""

    path: Path
    distribution: str
    version: str
    digest: Digest


@dataclass(frozen=True)
class WheelSet:
    """The wheels of all targets, and for each Python the requirements that name them."""

    wheels: tuple[Wheel, ...]
    requirements: tuple[tuple[str, str], ...]


def engine_version() -> str:
    """The version of the engine in this environment; raises ``HostError`` without one."""
    try:
        return version(ENGINE)
    except PackageNotFoundError:
        raise HostError(
            f"the engine {ENGINE} is not installed here", hint="pip install 'airpack[build]'"
        ) from None


def wheel_pins() -> tuple[str, ...]:
    """What to download, at this environment's versions: ``name==version``, sorted."""
    names = {requirement_name(text) for text in _own().requires or () if "extra ==" not in text}
    return tuple(sorted(f"{name}=={version(name)}" for name in {*names, ENGINE, PIP}))


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement (PEP 508) is about, as it normalises (PEP 503)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def collect_wheels(
    targets: Iterable[Target], extra: Iterable[str], directory: Path, progress: Progress
) -> WheelSet:
    """Download the wheels for every Python of every target into ``directory``.

    Raises ``UsageError`` for a target nobody makes wheels for, and ``AirpackError`` with pip's
    own words where a wheel cannot be had.
    """
    own = build_own_wheel(directory / "own")
    requirements = []
    found: dict[Path, Wheel] = {own: _describe(own)}
    for target in targets:
        for python in target.python:
            place = directory / f"{target.platform}-{python}"
            _download(target, python, [*wheel_pins(), *extra], place, progress)
            wheels = [_describe(path) for path in sorted(place.glob("*.whl"))]
            found.update({wheel.path: wheel for wheel in wheels})
            requirements.append((python, requirements_text([found[own], *wheels])))
    by_name = {wheel.path.name: wheel for wheel in found.values()}
    return WheelSet(tuple(by_name[name] for name in sorted(by_name)), tuple(requirements))


def requirements_text(wheels: Iterable[Wheel]) -> str:
    """A requirements file that names exactly these wheels, by digest (pip's hash mode)."""
    lines = (
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.digest}\n"
        for wheel in wheels
        if wheel.distribution != PIP
    )
    return "".join(sorted(lines))


def platform_tags(target: Target) -> tuple[str, ...]:
    """The wheel platforms (PEP 600) that a host of ``target`` takes, best first."""
    architecture = _ARCHITECTURES.get(target.platform)
    match = _GLIBC.match(target.glibc)
    if architecture is None or match is None:
        raise UsageError(
            f"target {target.platform} with glibc {target.glibc}: not one airpack knows",
            hint=f"platforms are {', '.join(_ARCHITECTURES)}; glibc is written 2.28",
        )
    tags = [f"manylinux_2_{minor}_{architecture}" for minor in range(int(match[1]), 4, -1)]
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    tags += [f"{name}_{architecture}" for minor, name in legacy.items() if minor <= int(match[1])]
    return tuple(tags)


def _download(
    target: Target, python: str, requirements: list[str], place: Path, progress: Progress
) -> None:
    """Let pip download for another host; a place that is complete is not asked for again."""
    complete = place / "complete"
    wanted = "\n".join(requirements)
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted:
        return
    progress.note(f"fetching wheels for {target.platform}, Python {python}")
    run_pip_download(target, python, requirements, place)
    complete.write_text(wanted, encoding="utf-8")


def run_pip_download(
    target: Target, python: str, requirements: Iterable[str], place: Path, *options: str
) -> None:
    """Download wheels for a host of ``target`` with that Python into ``place``."""
    match = _PYTHON.match(python)
    if match is None:
        raise UsageError(f"target Python {python!r}: write it as 3.11")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python),
        *("--abi", f"cp3{match[1]}", "--abi", "abi3", "--abi", "none", "--dest", str(place)),
        *options,
    ]
    for tag in platform_tags(target):
        command += ["--platform", tag]
    result = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AirpackError(
            f"pip cannot get the wheels for Python {python}: {_last_error(result.stderr)}",
            hint="python -m pip --version; then check the connection to the package index",
        )


def download_libgomp_wheel(target: Target, place: Path) -> Path:
    """The wheel that carries a libgomp old enough for the target; see ``libgomp``."""
    if not list(place.glob("*.whl")):
        run_pip_download(target, target.python[-1], [LIBGOMP_SOURCE], place, "--no-deps")
    return sorted(place.glob("*.whl"))[0]


def _last_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR")]
    return (lines or stderr.splitlines() or ["no word from pip"])[-1].removeprefix("ERROR: ")


def _describe(path: Path) -> Wheel:
    """Name and version from the file's name (PEP 427), digest from its bytes."""
    name, wheel_version = path.name.split("-")[:2]
    if not zipfile.is_zipfile(path):
        raise AirpackError(f"{path}: not a wheel")
    return Wheel(path, requirement_name(name), wheel_version, file_digest(path))


def _own() -> Distribution:
    return distribution("airpack")
