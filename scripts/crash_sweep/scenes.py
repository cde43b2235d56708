"""The commands that are swept, each with the home that it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bundles import NAME, Keys, make_keys, make_releases
from commands import run, run_traced

from packager.connected.signing.keys import generate_key
from packager.store.home import Home
from packager.trust.keys import parse_public_key

Word = str | Path


@dataclass(frozen=True)
class Scene:
    """A ``command``, as a person types it behind ``airpack``, and the ``home`` that it finds."""

    title: str
    command: tuple[str, ...]
    home: Path


class Stage:
    """Makes scenes below ``directory``: the bundles once, a home for each scene."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def keys(self) -> Keys:
        """The keys of all scenes."""
        place = self._directory / "keys"
        place.mkdir()
        return make_keys(place)

    @cached_property
    def releases(self) -> tuple[Path, Path]:
        """The bundles of all scenes, the older one first."""
        place = self._directory / "releases"
        place.mkdir()
        return make_releases(place, self.keys)

    def set(self, title: str) -> Scene:
        """Make the home of the scene of that title, and say what is to be done there."""
        home = self._directory / "homes" / title.replace(" ", "-")
        home.parent.mkdir(exist_ok=True)
        return Scene(title, tuple(str(word) for word in SCENES[title](self, home)), home)

    def run(self, home: Path, *command: Word) -> None:
        """Run a command that must succeed."""
        done = run(home, [str(word) for word in command])
        if done.code:
            raise RuntimeError(f"{command} ended with {done.code}: {done.text}")

    def kill(self, home: Path, inject: str, *command: Word) -> None:
        """Run a command that is killed where strace is told to."""
        words = [str(word) for word in command]
        run_traced(home, words, ["-o", "/dev/null", "-e", f"inject={inject}"])


def _trust(stage: Stage, home: Path) -> None:
    """Make ``home`` trust the signer, and have a key of its own."""
    stage.run(home, "trust", "add", stage.keys.signer)
    generate_key(home / "host.key", "p256", None)
    (home / "host.key.pub").unlink()


def _have_both(stage: Stage, home: Path) -> None:
    _trust(stage, home)
    for bundle in stage.releases:
        stage.run(home, "install", bundle, "--no-smoke")


def _trust_add_first(stage: Stage, _home: Path) -> list[Word]:
    return ["trust", "add", stage.keys.signer]


def _trust_add(stage: Stage, home: Path) -> list[Word]:
    _trust(stage, home)
    return ["trust", "add", stage.keys.other]


def _trust_remove(stage: Stage, home: Path) -> list[Word]:
    stage.run(home, *_trust_add(stage, home))
    other = parse_public_key(stage.keys.other.read_bytes(), "other")
    return ["trust", "remove", other.key_id]


def _trust_policy(stage: Stage, home: Path) -> list[Word]:
    stage.run(home, *_trust_add(stage, home))
    return ["trust", "policy", "--threshold", "2"]


def _install_first(stage: Stage, home: Path) -> list[Word]:
    _trust(stage, home)
    return ["install", stage.releases[0], "--no-smoke"]


def _install(stage: Stage, home: Path) -> list[Word]:
    stage.run(home, *_install_first(stage, home))
    return ["install", stage.releases[1], "--no-smoke"]


def _install_going_on(stage: Stage, home: Path) -> list[Word]:
    command = _install(stage, home)
    stage.kill(home, "fchmod:signal=KILL:when=1", *command)
    return command


def _install_tested(stage: Stage, home: Path) -> list[Word]:
    """With the engine, which writes too: behind it, strace hits some writes there and not here.

    Those are told as never reached; "install" has the same ones.
    """
    return [word for word in _install(stage, home) if word != "--no-smoke"]


def _rollback(stage: Stage, home: Path) -> list[Word]:
    _have_both(stage, home)
    return ["rollback", NAME]


def _rollback_to(stage: Stage, home: Path) -> list[Word]:
    return [*_rollback(stage, home), "--to", "1"]


def _uninstall(stage: Stage, home: Path) -> list[Word]:
    _have_both(stage, home)
    return ["uninstall", NAME]


def _uninstall_one(stage: Stage, home: Path) -> list[Word]:
    return [*_uninstall(stage, home), "--generation", "1"]


def _gc(stage: Stage, home: Path) -> list[Word]:
    """Of the second release a blob that no generation holds, and of an install what it left."""
    command = _install(stage, home)
    stage.run(home, *command)
    stage.run(home, "rollback", NAME)
    stage.run(home, "uninstall", NAME, "--generation", "2")
    stage.kill(home, "symlink:signal=KILL:when=1", *command)
    partial = Home(home).partials / NAME / ("0" * 64)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(5000))
    return ["gc"]


def _scrub(stage: Stage, home: Path) -> list[Word]:
    _have_both(stage, home)
    return ["scrub"]


def _scrub_repair(stage: Stage, home: Path) -> list[Word]:
    """A model file of generation 2, which is no other's, is damaged."""
    _have_both(stage, home)
    _damage(Home(home).models / NAME / "2/q8_0/q8_0.gguf", 0o444)
    return ["scrub", "--repair", stage.releases[1]]


def _scrub_repair_evidence(stage: Stage, home: Path) -> list[Word]:
    """What generation 2 says of itself is damaged."""
    _have_both(stage, home)
    _damage(Home(home).models / NAME / "2/bundle.json", 0o644)
    return ["scrub", "--repair", stage.releases[1]]


def _damage(path: Path, mode: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"damaged")
    path.chmod(mode)


SCENES: dict[str, Callable[[Stage, Path], list[Word]]] = {
    "trust add, the first": _trust_add_first,
    "trust add": _trust_add,
    "trust remove": _trust_remove,
    "trust policy": _trust_policy,
    "install, the first": _install_first,
    "install": _install,
    "install, going on": _install_going_on,
    "install, tested": _install_tested,
    "rollback": _rollback,
    "rollback --to": _rollback_to,
    "uninstall": _uninstall,
    "uninstall --generation": _uninstall_one,
    "gc": _gc,
    "scrub": _scrub,
    "scrub --repair": _scrub_repair,
    "scrub --repair, evidence": _scrub_repair_evidence,
}
