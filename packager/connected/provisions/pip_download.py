"""pip, run to download wheels for another host than this one.

A place that wheels were downloaded to is there whole or not at all, with the digest of each
wheel and the question that it answers; one that is damaged is downloaded again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from packager.connected.provisions.markers import missing_requirements, target_environment
from packager.errors import AirpackError, HostError, NoSpaceError, UsageError
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, encode_sums, parse_sums
from packager.format.target import Target
from packager.progress import Progress
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    make_directory,
    naming_refusals,
    read_capped,
    write_file,
)
from packager.store.digests import file_digest

PIP = "pip"
_QUESTION = "question.txt"
_MOST_ROUNDS = 8
_ARCHITECTURES = {"linux_x86_64": "x86_64", "linux_aarch64": "aarch64"}
_GLIBC = re.compile(r"2\.(\d{1,3})\Z")
_PYTHON = re.compile(r"3\.(\d{1,2})\Z")


class _ResolutionError(AirpackError):
    """The index was reached, and has no wheels that fit together."""


@dataclass(frozen=True)
class Question:
    """Which wheels ``requirements`` take on a host of ``target`` with that Python, as ``3.11``.

    ``preferred`` are versions (``name==version``) of what those require in turn.
    """

    target: Target
    python: str
    requirements: tuple[str, ...]
    preferred: tuple[str, ...] = ()
    dependencies: bool = True

    def encode(self) -> bytes:
        """All of it in bytes, to be compared."""
        host = f"{self.target.platform} {self.target.glibc} {self.python} {self.dependencies}"
        return "\n".join([host, *self.requirements, "", *self.preferred, ""]).encode()


def download(
    question: Question, place: Path, progress: Progress, *, what: str | None = None
) -> list[Path]:
    """The wheels that answer ``question``, sorted by name, in ``place``; asked for only once.

    ``what`` says what is fetched, where that is not simply wheels for the host of the question.
    Nobody else may work at ``place``. Raises ``AirpackError`` with pip's own words.
    """
    if not _is_whole(place, question, progress):
        host = f"{question.target.platform}, Python {question.python}"
        progress.note(f"fetching {what or f'wheels for {host}'}")
        temporary = place.with_name(f"{TEMPORARY_PREFIX}{place.name}")
        with naming_refusals(place):
            try:
                _answer(question, temporary, progress)
                _seal(temporary, question)
                _remove(place)
                temporary.rename(place)
                fsync_directory(place.parent)
            finally:
                _remove(temporary)
    return _wheels_in(place)


def _answer(question: Question, place: Path, progress: Progress) -> None:
    """Download at the preferred versions, or where that cannot be at whichever fit."""
    try:
        _complete(question, place)
    except _ResolutionError:
        if not question.preferred:
            raise
        _complete(replace(question, preferred=()), place)
        progress.note(
            f"Python {question.python}: not every dependency has a wheel at the version in use "
            "here; the newest that fit are taken"
        )


def _complete(question: Question, place: Path) -> None:
    """Download until nothing is missing over there: pip asks what *this* Python would need."""
    environment = target_environment(question.target, question.python)
    requirements = list(question.requirements)
    for _ in range(_MOST_ROUNDS):
        _remove(place)
        make_directory(place)
        _run_pip(question, requirements, place)
        if not question.dependencies:
            return
        missing = missing_requirements(_wheels_in(place), environment)
        if not missing:
            return
        requirements += missing
    raise AirpackError(f"Python {question.python}: wheels ever missing: {', '.join(missing)}")


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


def _run_pip(question: Question, requirements: Sequence[str], place: Path) -> None:
    match = _PYTHON.match(question.python)
    if match is None:
        raise UsageError(f"target Python {question.python!r}: write it as 3.11")
    if find_spec(PIP) is None:
        raise HostError("pip is not installed here", hint=f"{sys.executable} -m ensurepip")
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(question.preferred), encoding="utf-8")
    command = [
        *(sys.executable, "-m", PIP, "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", question.python),
        *("--abi", f"cp3{match[1]}", "--abi", "abi3", "--abi", "none", "--dest", str(place)),
        *("--constraint", str(constraints)),
        *(() if question.dependencies else ("--no-deps",)),
        *(word for tag in platform_tags(question.target) for word in ("--platform", tag)),
        *requirements,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise _pip_error(question.python, result.stderr)


def _pip_error(python: str, stderr: str) -> AirpackError:
    """pip's last word, and whether it is because nobody answered."""
    lines = stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    what = (errors or lines or ["no word from pip"])[-1]
    if what.startswith("ResolutionImpossible") and len(errors) > 1:
        what = errors[-2]
    message = f"pip cannot get the wheels for Python {python}: {what.rstrip('.')}"
    if "after connection broken by" in stderr or "Max retries exceeded" in stderr:
        return AirpackError(
            f"{message}; the package index does not answer",
            hint="check the connection, or name a mirror in PIP_INDEX_URL",
        )
    if "No space left on device" in stderr:
        return NoSpaceError(message, hint="free some space, or set AIRPACK_CACHE and TMPDIR")
    return _ResolutionError(message, hint="leave that Python out of the recipe's targets")


def _seal(place: Path, question: Question) -> None:
    for path in _wheels_in(place):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sums = {path.name: file_digest(path) for path in _wheels_in(place)}
    write_file(place / SUMS_NAME, encode_sums(sums))
    write_file(place / _QUESTION, question.encode())


def _is_whole(place: Path, question: Question, progress: Progress) -> bool:
    """Whether ``place`` answers the question with the very wheels that pip brought."""
    if not place.is_dir():
        return False
    try:
        if read_capped(place / _QUESTION, MAX_SUMS_SIZE) != question.encode():
            return False
        sums = parse_sums(read_capped(place / SUMS_NAME, MAX_SUMS_SIZE))
        if sums == {path.name: file_digest(path) for path in _wheels_in(place)}:
            return True
    except AirpackError:
        pass
    progress.note(f"{place}: damaged wheels in the cache; fetching them again")
    return False


def _wheels_in(place: Path) -> list[Path]:
    return sorted(place.glob("*.whl"))


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
