"""The real command, in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.bundles import EngineVariant, make_bundle, make_key

from packager.format.golden import Golden

AIRPACK = (sys.executable, "-m", "packager")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> object:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Host:
    """A host: where its home is, and what its environment says."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Where programs keep what a person did with them, apart from that of whoever tests."""
        return self.home.with_name("state")

    @property
    def environment(self) -> dict[str, str]:
        own = {"AIRPACK_HOME": str(self.home), "XDG_STATE_HOME": str(self.state)}
        return {**os.environ, **own, **self.extra}

    def airpack(self, *words: str | Path, stdin: str = "", before: Sequence[str] = ()) -> Ended:
        """Run ``airpack`` with nobody at a terminal; it never ends with a traceback."""
        done = subprocess.run(
            [*before, *AIRPACK, *map(str, words)],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Sender:
    """Who builds: a public key and two releases of one model."""

    pub: Path
    key_id: str
    first: Path
    second: Path


@pytest.fixture(scope="session")
def sender(
    tmp_path_factory: pytest.TempPathFactory, demo_model: Path, demo_golden: Golden
) -> Sender:
    place = tmp_path_factory.mktemp("sender")
    key = make_key(place / "team.key")
    runs = [EngineVariant("q4_k_m", demo_model, demo_golden)]
    first, second = (
        make_bundle(
            place, [key], name="demo", version=f"{n}.0.0", sequence=n, files={},
            engine_variants=runs, volume_size=1 << 20,
        )
        for n in (1, 2)
    )  # fmt: skip
    return Sender(place / "team.key.pub", key.public.key_id, first, second)


@pytest.fixture(scope="session")
def _installed(tmp_path_factory: pytest.TempPathFactory, sender: Sender) -> Path:
    host = Host(tmp_path_factory.mktemp("installed") / "home")
    assert host.airpack("trust", "add", sender.pub).code == 0
    for bundle in (sender.first, sender.second):
        assert host.airpack("install", bundle, "--no-smoke").code == 0
    return host.home


@pytest.fixture
def installed(_installed: Path, tmp_path: Path) -> Host:
    """A host that trusts the sender and has both releases, the second current."""
    home = tmp_path / "home"
    shutil.copytree(_installed, home, symlinks=True)
    return Host(home)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nothing happened yet."""
    return Host(tmp_path / "home")


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory``, by its path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
