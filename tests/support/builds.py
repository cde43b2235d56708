"""Bundles built for a test: built again, and compared with another."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from packager.connected.build import build
from packager.connected.cache import Cache
from packager.format.bundle import Bundle, parse_bundle
from packager.progress import Silent
from support.workplace import Workplace


def differences(made: Path, wanted: Path) -> list[str]:
    """What differs between two bundles but their signatures: payload files, and files beside."""
    files, others = ({f.path: f.digest for f in index_of(b).files} for b in (made, wanted))
    inside = [path for path in {**files, **others} if files.get(path) != others.get(path)]
    beside, theirs = digests(made), digests(wanted)
    return inside + [
        name
        for name in {**beside, **theirs}
        if not name.endswith((".sig", ".dsse.json")) and beside.get(name) != theirs.get(name)
    ]


def index_of(bundle: Path) -> Bundle:
    """The index of a bundle."""
    return parse_bundle((bundle / "bundle.json").read_bytes())


def sums_hold(bundle: Path) -> bool:
    """Whether ``sha256sum`` finds every file as SHA256SUMS says."""
    check = ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"]
    return subprocess.run(check, cwd=bundle, capture_output=True).returncode == 0


def digests(bundle: Path) -> dict[str, str]:
    """The files of a bundle by name, each with its sha256 in hex."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.iterdir()}


def rebuilt(workplace: Workplace, output: Path, cache: Path | None = None) -> Path:
    """The bundle built again, from the session's cache or another."""
    return build(workplace.request(output), Cache(cache or workplace.cache.root), Silent())


def copy_of(cache: Cache, place: Path, *parts: str) -> Path:
    """A cache that holds only ``parts`` of another, as files of its own."""
    for part in parts:
        shutil.copytree(cache.root / part, place / part)
    return place
