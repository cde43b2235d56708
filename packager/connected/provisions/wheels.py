"""The wheels that cross the gap: airpack's own, its dependencies', the engine's, and pip's.

What the far side installs is what ran here: the engine and all dependencies are pinned to the
versions of this very environment, so the golden outputs speak of the same engine, and the same
environment gives the same bytes tomorrow.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packager.connected.provisions.own_wheel import build_own_wheel
from packager.connected.provisions.pip_download import PIP, Question, download
from packager.errors import AirpackError, HostError
from packager.format.digest import Digest
from packager.format.target import Target
from packager.progress import Progress
from packager.runtime.environment import ENGINE
from packager.store.digests import file_digest

# Not this environment's: it runs over there, on each Python of the target, the newest too.
PIP_PIN = f"{PIP}==26.3"


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


def engine_title() -> str:
    """The engine as the index names it, with its version."""
    return f"{ENGINE} {engine_version()}"


def wheel_pins() -> tuple[str, ...]:
    """What to download, at this environment's versions: ``name==version``, sorted.

    Raises ``HostError`` without the engine.
    """
    pins = {f"{name}=={version(name)}" for name in _required_by("airpack") if name != ENGINE}
    return tuple(sorted([*pins, f"{ENGINE}=={engine_version()}", PIP_PIN]))


def transitive_pins() -> tuple[str, ...]:
    """What those need in turn, at this environment's versions: ``name==version``, sorted.

    Markers are not looked at: a constraint on a package that nobody needs does nothing.
    """
    direct = {*_required_by("airpack"), ENGINE}
    found: dict[str, str] = {}
    waiting = [name for parent in direct for name in _required_by(parent)]
    while waiting:
        name = waiting.pop()
        if name not in direct and name not in found:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
            waiting.extend(_required_by(name))
    return tuple(sorted(f"{name}=={number}" for name, number in found.items()))


def _required_by(name: str) -> set[str]:
    requires = distribution(name).requires or ()
    return {requirement_name(text) for text in requires if "extra ==" not in text}


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement (PEP 508) is about, as it normalises (PEP 503)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def collect_wheels(
    targets: Iterable[Target], extra: Iterable[str], directory: Path, progress: Progress
) -> WheelSet:
    """Have the wheels for every Python of every target in ``directory``, downloaded once.

    The caller sees to it that nobody else works in ``directory``. Raises ``UsageError`` for a
    target nobody makes wheels for, and ``AirpackError`` with pip's own words where a wheel
    cannot be had.
    """
    own = _describe(build_own_wheel(directory / "own"))
    by_name = {own.path.name: own}
    requirements = []
    for target, python in _hosts(targets):
        place = _place(target, python, directory)
        question = Question(target, python, (*wheel_pins(), *extra), transitive_pins())
        wheels = [_describe(path) for path in download(question, place, progress)]
        by_name |= {wheel.path.name: wheel for wheel in wheels}
        requirements.append((python, requirements_text([own, *wheels])))
    return WheelSet(tuple(by_name[name] for name in sorted(by_name)), tuple(requirements))


def wheel_places(targets: Iterable[Target], directory: Path) -> tuple[Path, ...]:
    """Where :func:`collect_wheels` has what it downloads; each is there whole, or not at all."""
    return tuple(_place(target, python, directory) for target, python in _hosts(targets))


def _place(target: Target, python: str, directory: Path) -> Path:
    return directory / f"{target.platform}-{python}"


def _hosts(targets: Iterable[Target]) -> list[tuple[Target, str]]:
    """Each Python once, with the oldest glibc it may meet: newer ones take the same wheels."""
    oldest: dict[str, Target] = {}
    for target in targets:
        for python in target.python:
            known = oldest.setdefault(python, target)
            if _glibc_minor(target) < _glibc_minor(known):
                oldest[python] = target
    return [(target, python) for python, target in oldest.items()]


def _glibc_minor(target: Target) -> int:
    return int(target.glibc.partition(".")[2] or 0)


def requirements_text(wheels: Iterable[Wheel]) -> str:
    """A requirements file that names exactly these wheels, by digest (pip's hash mode)."""
    lines = (
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.digest}\n"
        for wheel in wheels
        if wheel.distribution != PIP
    )
    return "".join(sorted(lines))


def _describe(path: Path) -> Wheel:
    """Name and version from the file's name (PEP 427), digest from its bytes."""
    if not zipfile.is_zipfile(path):
        raise AirpackError(f"{path}: not a wheel")
    name, wheel_version = path.name.split("-")[:2]
    return Wheel(path, requirement_name(name), wheel_version, file_digest(path))
