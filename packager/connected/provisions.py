"""What travels beside the models: how an isolated host gets airpack itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.documents import (
    LIBGOMP_LICENCE_NAME,
    SETUP_NAME,
    packaged_texts,
)
from packager.connected.libgomp import LIBGOMP_NAME, extract_libgomp
from packager.connected.wheels import collect_wheels, download_libgomp_wheel, wheel_pins
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.recipe import Recipe
from packager.progress import Progress
from packager.store.atomic import make_directory, write_file


@dataclass(frozen=True)
class Provisions:
    """The files of ``setup/`` in the payload, by their name on the medium.

    ``libraries`` is a directory with the carried ``libgomp.so.1``.
    """

    files: tuple[tuple[str, Path], ...]
    libraries: Path


def provide(recipe: Recipe, cache: Cache, progress: Progress) -> Provisions:
    """Collect everything in the cache, fetching from the package index what is not there."""
    place = cache.root / "setup" / _key(recipe).hex
    wheels = collect_wheels(recipe.targets, recipe.runtime.extra_wheels, place, progress)
    files = {wheel.path.name: wheel.path for wheel in wheels.wheels}
    for python, text in wheels.requirements:
        files |= _written(place, f"requirements-{python}.txt", text.encode("ascii"))
    texts = packaged_texts()
    files |= _written(place, SETUP_NAME, texts.setup)
    files |= _written(place, LIBGOMP_LICENCE_NAME, texts.libgomp_licence)
    libgomp_wheel = download_libgomp_wheel(recipe.targets[0], place / "libgomp")
    files[LIBGOMP_NAME] = extract_libgomp(libgomp_wheel, place / "lib")
    return Provisions(tuple(sorted(files.items())), place / "lib")


def _written(place: Path, name: str, data: bytes) -> dict[str, Path]:
    make_directory(place)
    write_file(place / name, data)
    return {name: place / name}


def _key(recipe: Recipe) -> Digest:
    return Digest.of(
        canonical.encode(
            {
                "pins": list(wheel_pins()),
                "extra": list(recipe.runtime.extra_wheels),
                "targets": [[t.platform, t.glibc, *t.python] for t in recipe.targets],
            }
        )
    )
