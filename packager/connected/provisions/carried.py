"""What travels beside the models: how an isolated host gets airpack itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.packing.layout import Member
from packager.connected.provisions.documents import packaged_texts
from packager.connected.provisions.libgomp import (
    LIBGOMP_NAME,
    LIBGOMP_PYTHON,
    LIBGOMP_SOURCE,
    extract_libgomp,
)
from packager.connected.provisions.pip_download import Question, download
from packager.connected.provisions.wheels import (
    collect_wheels,
    transitive_pins,
    wheel_pins,
    wheel_places,
)
from packager.errors import UsageError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.held import SETUP_DIRECTORY
from packager.format.recipe import Recipe
from packager.format.target import Target
from packager.progress import Progress
from packager.store.atomic import TEMPORARY_PREFIX, make_directory, naming_refusals, write_file
from packager.store.digests import file_digest

_LIBGOMP_PLACE = "libgomp"


@dataclass(frozen=True)
class Provisions:
    """The files of ``setup/`` in the payload, by their name on the medium.

    ``libraries`` is a directory with the carried ``libgomp.so.1``.
    """

    files: tuple[tuple[str, Path], ...]
    libraries: Path

    def members(self) -> tuple[Member, ...]:
        """The files as the payload has them; each is read for its digest."""
        return tuple(
            Member(f"{SETUP_DIRECTORY}/{name}", path, path.stat().st_size, file_digest(path))
            for name, path in self.files
        )


def check_targets(targets: Iterable[Target]) -> None:
    """Raise ``UsageError`` for several platforms: there is one ``libgomp.so.1`` on a medium."""
    platforms = sorted({target.platform for target in targets})
    if len(platforms) > 1:
        raise UsageError(
            f"targets: {' and '.join(platforms)} in one bundle",
            hint="write a recipe for each platform",
        )


def provide(recipe: Recipe, cache: Cache, progress: Progress) -> Provisions:
    """Collect everything in the cache, fetching from the package index what is not there."""
    check_targets(recipe.targets)
    place = _place(recipe, cache)
    with cache.locked(
        f"setup-{place.name}",
        sleep=time.sleep,
        on_wait=lambda: progress.note("waiting for another process that fetches the wheels"),
    ):
        make_directory(place)
        _sweep(place)
        return _collect(recipe, place, progress)


def provisions_at_hand(recipe: Recipe, cache: Cache, progress: Progress) -> Provisions | None:
    """As :func:`provide`, if all that must be fetched for it is in the cache; else ``None``."""
    place = _place(recipe, cache)
    fetched = (*wheel_places(recipe.targets, place), place / _LIBGOMP_PLACE)
    return provide(recipe, cache, progress) if all(p.is_dir() for p in fetched) else None


def _place(recipe: Recipe, cache: Cache) -> Path:
    return cache.root / "setup" / _key(recipe).hex


def _collect(recipe: Recipe, place: Path, progress: Progress) -> Provisions:
    wheels = collect_wheels(recipe.targets, recipe.runtime.extra_wheels, place, progress)
    files = {wheel.path.name: wheel.path for wheel in wheels.wheels}
    texts = dict(packaged_texts())
    for python, text in wheels.requirements:
        texts[f"requirements-{python}.txt"] = text.encode("ascii")
    for name, data in texts.items():
        write_file(place / name, data)
        files[name] = place / name
    source = libgomp_wheel(recipe.targets[0], place / _LIBGOMP_PLACE, progress)
    files[LIBGOMP_NAME] = extract_libgomp(source, place / "lib")
    return Provisions(tuple(sorted(files.items())), place / "lib")


def libgomp_wheel(target: Target, place: Path, progress: Progress) -> Path:
    """The wheel that carries a libgomp old enough for the target; see ``libgomp``."""
    question = Question(target, LIBGOMP_PYTHON, (LIBGOMP_SOURCE,), dependencies=False)
    # Neither the wheel nor its Python is the host's, who would look for both on the medium.
    what = f"{LIBGOMP_NAME} for {target.platform}, which {LIBGOMP_SOURCE} has inside"
    return download(question, place, progress, what=what)[0]


def _sweep(place: Path) -> None:
    """Remove what a killed process was writing; the caller holds the lock, so none is alive."""
    with naming_refusals(place):
        for path in list(place.rglob(f"{TEMPORARY_PREFIX}*")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _key(recipe: Recipe) -> Digest:
    return Digest.of(
        canonical.encode(
            {
                "pins": [*wheel_pins(), *transitive_pins(), LIBGOMP_SOURCE],
                "extra": list(recipe.runtime.extra_wheels),
                "targets": [[t.platform, t.glibc, *t.python] for t in recipe.targets],
            }
        )
    )
