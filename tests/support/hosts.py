"""An isolated host in a directory: what it trusts, what it holds, and what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from packager.connected.signing.keys import SigningKey
from packager.isolated.install import install
from packager.isolated.media import Media, open_media
from packager.isolated.request import Installation, InstallRequest
from packager.isolated.trust_store import write_keyring
from packager.isolated.verify import Verification, authenticate, verify_media
from packager.progress import Progress, Silent
from packager.store.generations import find_generation
from packager.store.home import Home
from packager.store.journal import Event, read_events
from packager.trust.keyring import Keyring
from support.bundles import keyring_of

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Host:
    """A host that trusts the keys of ``keyring``."""

    home: Home
    keyring: Keyring

    def install(
        self,
        *media: Path,
        variant: str | None = None,
        smoke: bool = False,
        allow_downgrade: bool = False,
        force: bool = False,
        progress: Progress | None = None,
        patches: tuple[Path, ...] = (),
    ) -> Installation:
        """Install what lies at ``media``, without the smoke test unless asked."""
        request = InstallRequest(
            media=open_media(media),
            home=self.home,
            keyring=self.keyring,
            variant=variant,
            smoke=smoke,
            allow_downgrade=allow_downgrade,
            operator="tester",
            now=NOW,
            patches=patches,
            force=force,
        )
        return install(request, progress or Silent())

    def verify(self, *media: Path) -> Verification:
        """Read every byte of what lies at ``media``."""
        opened: Media = open_media(media)
        return verify_media(authenticate(opened, self.keyring, now=NOW), opened, Silent())

    def state(self) -> dict[str, bytes | str]:
        """Everything below the home but the log and the lock: files by content, links by target.

        Without what an interrupted install keeps for the next one; see ``partials``.
        """
        found: dict[str, bytes | str] = {}
        for path in sorted(self.home.root.rglob("*")):
            name = path.relative_to(self.home.root).as_posix()
            if path.is_relative_to(self.home.partials):
                continue
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file() and name not in ("lock", "log.jsonl", "log.jsonl.head"):
                found[name] = path.read_bytes()
        return found

    def partials(self) -> dict[str, bytes]:
        """What interrupted installs keep: each file by the digest that it is to have."""
        paths = self.home.partials.glob("*/*")
        return {path.name: path.read_bytes() for path in paths}

    def events(self) -> tuple[Event, ...]:
        """The log, checked."""
        return read_events(self.home.log)

    def last_refusal(self) -> str:
        """The error in the last event, which is a refusal."""
        event = self.events()[-1]
        assert event.what == "refuse"
        return str(event.details["error"])

    def current(self, name: str = "tiny") -> int:
        """The number of the current generation."""
        return find_generation(self.home, name).number


def make_host(root: Path, key: SigningKey) -> Host:
    """A host at ``root`` that trusts ``key``, in its trust store too."""
    ring = keyring_of(key)
    home = Home(root)
    write_keyring(home, ring)
    return Host(home, ring)


_INSTALL = """
import sys
from pathlib import Path
from support.hosts import Host, NOW
from packager.errors import AirpackError
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
home = Home(Path(sys.argv[1]))
try:
    Host(home, read_keyring(home)).install(*map(Path, sys.argv[2:]))
except AirpackError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""
_SUPPORT = Path(__file__).parents[1]


def install_command(home: Home, *media: Path) -> list[str]:
    """The command that installs ``media`` in a process of its own; run it with ``child_env``."""
    return [sys.executable, "-c", _INSTALL, str(home.root), *map(str, media)]


def child_env() -> dict[str, str]:
    """The environment in which a child finds this package and these helpers."""
    paths = [str(_SUPPORT), str(_SUPPORT.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_install(
    home: Home, *media: Path, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Install in a process of its own, with the command ``before`` in front, and wait."""
    return subprocess.run(
        [*before, *install_command(home, *media)],
        env=child_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def strace(*arguments: str) -> list[str]:
    """The front of a command that strace watches, or the reason why this host cannot."""
    command = ["strace", "-f", "-qq", *arguments]
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "true"]
    if not shutil.which("strace") or subprocess.run(probe, check=False).returncode:
        pytest.skip("strace is not here, or may not trace")
    return command


def in_small_disk(place: Path, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run the shell ``script`` with a disk of ``size`` at ``place``, that no one else sees."""
    wrapped = f'mount -t tmpfs -o mode=755,size={size} tmpfs "$PLACE" && {script}'
    command = ["unshare", "-rm", "sh", "-c", wrapped]
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(place)]
    if not shutil.which("unshare") or subprocess.run(probe, check=False).returncode:
        pytest.skip("this host lets nobody make a namespace with a disk of its own")
    return subprocess.run(
        command,
        env={**child_env(), "PLACE": str(place)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
