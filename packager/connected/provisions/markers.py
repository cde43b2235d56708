"""Which requirements of a wheel hold on another host than this one.

pip evaluates environment markers (PEP 508) for the Python that runs it, also when it downloads
for another one (``--python-version``; pip's issue 11664): a dependency that only the other
Python needs would be missed, and be missing at the far end.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packager.format.target import Target
from packager.store.atomic import naming_refusals


def target_environment(target: Target, python: str) -> Mapping[str, str]:
    """What the markers of PEP 508 are on a host of ``target`` with that Python, as ``3.11``."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": target.platform.removeprefix("linux_"),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def missing_requirements(wheels: Iterable[Path], environment: Mapping[str, str]) -> tuple[str, ...]:
    """What ``wheels`` require on a host with ``environment`` and none of them is, sorted."""
    paths = tuple(wheels)
    present = {canonicalize_name(path.name.split("-")[0]) for path in paths}
    missing = set()
    for path in paths:
        for requirement in _requirements(path):
            marker = requirement.marker
            if marker is not None and not marker.evaluate(dict(environment)):
                continue
            if canonicalize_name(requirement.name) not in present:
                missing.add(f"{requirement.name}{requirement.specifier}")
    return tuple(sorted(missing))


def _requirements(wheel: Path) -> Iterable[Requirement]:
    """The ``Requires-Dist`` fields of a wheel's metadata (PEP 566)."""
    with naming_refusals(wheel), zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
