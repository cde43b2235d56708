"""What every variant is made with and from, and the right to be the only one who makes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from packager.connected.cache import Cache
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.lock import Lock, LockedFile
from packager.format.recipe import Recipe
from packager.progress import Progress
from packager.quantize.executors.job import Executor
from packager.quantize.executors.threads import Threads
from packager.store.atomic import TEMPORARY_PREFIX, naming_refusals


@dataclass(frozen=True)
class Workshop:
    """``sources`` are the fetched files by their names in the repository; ``text`` is the smoke
    test's, if there is one; texts and matrices that the recipe names are in ``recipe_folder``.
    ``executor`` quantizes. ``adapters`` are the fetched files of each adapter, by variant.
    ``stripped`` is what was left out of the sources, whose content ids ``lock`` has as they are.
    """

    recipe: Recipe
    recipe_folder: Path
    lock: Lock
    sources: Mapping[str, Path]
    text: str | None
    engine: str
    libraries: Path
    cache: Cache
    progress: Progress
    executor: Executor = field(default_factory=Threads)
    adapters: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    stripped: tuple[str, ...] = ()

    def named_file(self, path: str) -> LockedFile:
        """The file ``path`` that the recipe itself names, as the lock has it."""
        return next(file for file in self.lock.texts if file.path == path)


def key_of(made_from: Mapping[str, Json]) -> Digest:
    """What an artefact is kept under in the cache: the digest of all that it is made from."""
    return Digest.of(canonical.encode(dict(made_from)))


@contextmanager
def only_maker(workshop: Workshop) -> Iterator[None]:
    """Be the only process that makes something in the cache: each would want every core.

    What was being written by one that was killed is removed.
    """
    cache, progress = workshop.cache, workshop.progress
    with cache.locked(
        "derived",
        sleep=time.sleep,
        on_wait=lambda: progress.note("waiting for another process that quantizes"),
    ):
        derived = cache.root / "derived"
        with naming_refusals(derived):
            for path in list(derived.glob(f"{TEMPORARY_PREFIX}*")):
                path.unlink(missing_ok=True)
        yield
