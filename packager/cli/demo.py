"""``airpack demo``: the whole trip on the embedded model, with every command shown."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument
from packager.cli.screen import Screen
from packager.errors import AirpackError, UsageError

_NAME = "demo"
_PROMPT = "In the beginning"
_NO_NETWORK = ("unshare", "-rn")


@click.command(cls=Command)
@click.argument("directory", type=directory_argument, default="airpack-demo", metavar="[DIR]")
@click.pass_obj
def demo(screen: Screen, directory: Path) -> None:
    """Make the whole trip in DIR (./airpack-demo): build, carry, verify, install, ask."""
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory}: not empty", hint="airpack demo ANOTHER-DIR")
    directory.mkdir(parents=True, exist_ok=True)
    trip = _Trip(screen, directory.resolve(), dict(os.environ), ())
    bundle = _connected_side(trip)
    answer = _isolated_side(trip, bundle)
    screen.note(f"\nThe model, where no cable leads, answers (all of this is in {directory}):\n")
    screen.result({"ok": True, "bundle": str(bundle), "answer": answer}, f"{_PROMPT} {answer}")


@dataclass(frozen=True)
class _Trip:
    """Where commands are run, and in what."""

    screen: Screen
    directory: Path
    environment: Mapping[str, str]
    prefix: tuple[str, ...]

    def run(self, *command: str | Path, capture: bool = False) -> str:
        """Show a command, then run it; raises ``AirpackError`` if it fails.

        What it gives as result is shown, or returned if ``capture`` asks for that.
        """
        words = [*self.prefix, *(str(word) for word in command)]
        self.screen.note(f"\n$ {shlex.join(words)}")
        result = subprocess.run(
            words,
            cwd=self.directory,
            env=dict(self.environment),
            stdout=subprocess.PIPE if capture else sys.stderr.fileno(),
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise AirpackError(f"the demo stopped: {words[0]} ended with {result.returncode}")
        return (result.stdout or "").strip()


def _connected_side(trip: _Trip) -> Path:
    trip.screen.note("On the connected host: make a key, write a recipe, build the bundle.")
    airpack = [sys.executable, "-m", "packager"]
    model = Path(str(files("packager") / "demo" / "tiny-kjv"))
    trip.run(*airpack, "keys", "generate", "team.key", "--no-passphrase")
    trip.run(*airpack, "init", model, "-o", f"{_NAME}.yaml")
    trip.run(*airpack, "build", f"{_NAME}.yaml", "-o", "medium", "--key", "team.key")
    return next(path for path in (trip.directory / "medium").iterdir() if path.is_dir())


def _isolated_side(trip: _Trip, bundle: Path) -> str:
    name, signature = bundle.name.rsplit("-", 1)[0], next(bundle.glob("SHA256SUMS.*.sig"))
    key = trip.directory / "team.key.pub"
    far = _Trip(
        screen=trip.screen,
        directory=bundle,
        environment=_bare_environment(trip.directory / "isolated"),
        prefix=_no_network(trip.screen),
    )
    far.screen.note("\nOn the isolated host, without a network: check with stock commands.")
    far.run("openssl", "dgst", "-sha256", "-verify", key, "-signature", signature, "SHA256SUMS")
    far.run("sha256sum", "--quiet", "-c", "SHA256SUMS")
    far.screen.note("\nGet airpack from the bundle itself, then verify, install and ask.")
    far.run("sh", "setup.sh", trip.directory / "isolated" / "airpack")
    airpack = trip.directory / "isolated" / "airpack" / "bin" / "airpack"
    far.run(airpack, "trust", "add", key)
    far.run(airpack, "verify", ".")
    far.run(airpack, "install", ".")
    far.run(airpack, "list")
    return far.run(airpack, "run", name, _PROMPT, "--max-tokens", "48", capture=True)


def _no_network(screen: Screen) -> tuple[str, ...]:
    """What runs a command where there is no network, if this kernel lets us."""
    if shutil.which(_NO_NETWORK[0]):
        probe = subprocess.run([*_NO_NETWORK, "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return _NO_NETWORK
    screen.warn("this kernel gives no network namespace; the far side runs with the network on")
    return ()


def _bare_environment(home: Path) -> dict[str, str]:
    """Nothing of this session's but where programs are."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "AIRPACK_HOME": str(home / "home"),
    }
