"""Two releases and what lies between them: a host that has the first, and the delta."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.held import Setup, SetupFile


@dataclass(frozen=True)
class Shell:
    """Runs ``airpack``, with a home and the session's cache."""

    home: Path
    cache: Path

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "packager", *map(str, words)],
            env={**os.environ, "AIRPACK_HOME": str(self.home), "AIRPACK_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def ask(self, *words: str | Path, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@dataclass(frozen=True)
class Trip:
    """What lies where after two releases: the inventory that came back, and the delta."""

    home: Path
    inventory: Path
    said: str
    delta: Path

    @property
    def index(self) -> Bundle:
        return parse_bundle((self.delta / "bundle.json").read_bytes())


def setup_of(bundle: str, *contents: tuple[str, bytes]) -> Setup:
    """What ``bundle`` set airpack up with: paths and their bytes."""
    return Setup(bundle, tuple(SetupFile(p, len(d), Digest.of(d)) for p, d in contents))
