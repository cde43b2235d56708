"""``airpack build``: the near half of the trip, from a recipe to a signed bundle.

    recipe -> lock -> fetch -> quantize -> measure -> pack -> sign -> medium

The bundle is written under a hidden name and gets its own when it is whole and signed, so that
nothing unfinished can pass for a bundle.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from packager import __version__
from packager.connected.adapter_sources import fetch_adapters
from packager.connected.cache import Cache
from packager.connected.delta import Delta, leave_out
from packager.connected.documents import README_NAME, SETUP_NAME, readme_text
from packager.connected.fetch import fetch
from packager.connected.gguf_types import check_gguf_variants
from packager.connected.keys import SigningKey
from packager.connected.layout import Member, PayloadPlan, plan_payload
from packager.connected.local import read_text
from packager.connected.pack import PackedPayload, write_payload
from packager.connected.parity import write_parity
from packager.connected.provisions import Provisions, check_targets, provide
from packager.connected.sign import sign_bundle
from packager.connected.spares import write_spares
from packager.connected.variants import MadeVariant, make_variants
from packager.connected.wheels import ENGINE, engine_version
from packager.connected.workshop import Workshop
from packager.errors import DigestMismatchError, HostError, NoSpaceError, PolicyError, UsageError
from packager.format.bundle import INDEX_NAME, Bundle, Origin, encode_bundle
from packager.format.digest import Digest
from packager.format.inventory import Inventory
from packager.format.lock import Folder, HubCommit, Lock, encode_lock
from packager.format.recipe import Recipe
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME, encode_sums
from packager.format.timestamps import format_timestamp, parse_timestamp
from packager.format.volumes import ParityVolume
from packager.progress import Progress
from packager.quantize.executors.job import Executor
from packager.quantize.executors.threads import Threads
from packager.store.atomic import (
    appearing_whole,
    write_file,
)
from packager.store.digests import file_digest

LOCK_NAME = "lock.json"
SETUP_DIRECTORY = "setup"


@dataclass(frozen=True)
class BuildRequest:
    """What a person asked for, and the moment that goes into the index.

    ``volume_size`` in bytes, ``None`` for what fits every medium; ``parity`` volumes, ``None`` for
    as many as the recipe says. What ``base`` holds is left out.
    """

    recipe: Recipe
    recipe_folder: Path
    lock: Lock
    output: Path
    keys: tuple[SigningKey, ...]
    volume_size: int | None
    parity: int | None
    now: datetime
    base: Inventory | None = None
    executor: Executor = field(default_factory=Threads)


def check_output(recipe: Recipe, output: Path) -> Path:
    """Where the bundle will be; raises ``UsageError`` where there is one already."""
    directory = output / f"{recipe.name}-{recipe.version}"
    if os.path.lexists(directory):
        raise UsageError(
            f"{directory}: exists already",
            hint="raise version and sequence in the recipe, or remove that directory",
        )
    return directory


def _check_expiry(request: BuildRequest) -> None:
    """Refuse what every host will refuse, before it is carried there."""
    expires = request.recipe.expires
    if expires is not None and parse_timestamp(expires) <= request.now:
        raise PolicyError(
            f"recipe: expires: {expires} is over", hint="set a later date, or leave it out"
        )


def _check_writable(output: Path) -> None:
    """Find out before the hours of work, and without making ``output``."""
    absolute = output.absolute()
    place = next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise HostError(
            f"{place}: no directory that can be written to", hint="build elsewhere: -o DIR"
        )


def build(request: BuildRequest, cache: Cache, progress: Progress) -> Path:
    """Build the bundle and return its directory.

    Raises an ``AirpackError`` of the class of what was wrong; what was fetched and quantized by
    then stays in the cache, and the next build goes on from there.
    """
    recipe, lock = request.recipe, request.lock
    directory = check_output(recipe, request.output)
    check_targets(recipe.targets)
    check_gguf_variants(recipe)
    _check_expiry(request)
    _check_writable(request.output)
    sources = fetch(lock, cache, progress, recipe_folder=request.recipe_folder)
    adapters = fetch_adapters(lock, cache, progress, recipe_folder=request.recipe_folder)
    provisions = provide(recipe, cache, progress)
    workshop = Workshop(
        recipe=recipe,
        recipe_folder=request.recipe_folder,
        lock=lock,
        sources=sources,
        text=_smoke_text(request),
        engine=f"{ENGINE} {engine_version()}",
        libraries=provisions.libraries,
        cache=cache,
        progress=progress,
        executor=request.executor,
        adapters=adapters,
    )
    made = make_variants(workshop)
    parity = recipe.medium.parity if request.parity is None else request.parity
    delta = leave_out([m for variant in made for m in variant.members], request.base)
    _say_delta(request, delta, progress)
    members = [*_setup_members(provisions), *delta.carried]
    plan = plan_payload(members, request.volume_size, parity)
    with _only_builder(directory, cache, progress), appearing_whole(directory) as place:
        check_output(recipe, request.output)
        _check_space(place, plan, parity, provisions)
        packed = write_payload(plan, place, progress)
        sums = write_parity(packed.payload, plan.volumes, parity, place, progress)
        index = _index(request, workshop, made, delta, plan, packed, sums.volumes)
        _write_small_files(place, request, index, provisions)
        write_spares(place, (INDEX_NAME, LOCK_NAME, README_NAME, SETUP_NAME))
        _write_sums(place, packed.volume_digests | sums.digests)
        write_spares(place, (SUMS_NAME,))
        for key in request.keys:
            sign_bundle(place, key)
    return directory


@contextmanager
def _only_builder(directory: Path, cache: Cache, progress: Progress) -> Iterator[None]:
    """Be the only process that writes ``directory``: two would mix their files in it."""
    name = Digest.of(os.fsencode(directory.absolute())).hex
    with cache.locked(
        f"build-{name}",
        sleep=time.sleep,
        on_wait=lambda: progress.note(f"waiting for another process that builds {directory}"),
    ):
        yield


def _smoke_text(request: BuildRequest) -> str | None:
    path = request.recipe.smoke.text
    for file in request.lock.texts:
        if file.path == path:
            return read_text(request.recipe_folder, file)
    return None


def _say_delta(request: BuildRequest, delta: Delta, progress: Progress) -> None:
    if request.base is not None:
        progress.note(
            f"{len(delta.held)} files, {format_size(delta.held_size)}, stay at home: "
            "the base has them"
        )


def _setup_members(provisions: Provisions) -> list[Member]:
    return [
        Member(_setup_path(name), path, path.stat().st_size, file_digest(path))
        for name, path in provisions.files
    ]


def _setup_path(name: str) -> str:
    return f"{SETUP_DIRECTORY}/{name}"


def _check_space(directory: Path, plan: PayloadPlan, parity: int, provisions: Provisions) -> None:
    sums = parity * (plan.volumes[0].size + plan.chunk_size)
    needed = plan.layout.size + sums + sum(path.stat().st_size for _, path in provisions.files)
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise NoSpaceError(
            f"{directory.parent}: {format_size(needed)} needed, {format_size(free)} free",
            hint="free some space, or build into a directory on a larger disk: -o DIR",
        )


def _index(
    request: BuildRequest,
    workshop: Workshop,
    made: Sequence[MadeVariant],
    delta: Delta,
    plan: PayloadPlan,
    packed: PackedPayload,
    parity: tuple[ParityVolume, ...],
) -> Bundle:
    recipe, lock = request.recipe, _travelling(request.lock)
    return Bundle(
        name=recipe.name,
        version=recipe.version,
        sequence=recipe.sequence,
        created=format_timestamp(request.now),
        expires=recipe.expires,
        signers=recipe.signers,
        airpack=__version__,
        engine=workshop.engine,
        origin=_origin(lock),
        lock=Digest.of(encode_lock(lock)),
        payload=packed.payload,
        volumes=plan.volumes,
        parity=parity,
        files=plan.files,
        variants=tuple(variant.variant for variant in made),
        targets=recipe.targets,
        held=delta.held,
        base=request.base.digest if request.base else None,
    )


def _origin(lock: Lock) -> Origin:
    source = lock.source
    if isinstance(source, HubCommit):
        return Origin("hub", source.repository, lock.revision, lock.licence)
    return Origin("folder", source.path, lock.revision, lock.licence)


def _travelling(lock: Lock) -> Lock:
    """The lock as others may see it: of a local folder only its own name, not the way to it."""
    adapters = tuple(replace(a, source=_anonymous(a.source)) for a in lock.adapters)
    return replace(lock, source=_anonymous(lock.source), adapters=adapters)


def _anonymous(source: HubCommit | Folder) -> HubCommit | Folder:
    if isinstance(source, HubCommit):
        return source
    return Folder(Path(source.path).name or "folder")


def _write_small_files(
    directory: Path, request: BuildRequest, index: Bundle, provisions: Provisions
) -> None:
    for name, source in provisions.files:
        shutil.copyfile(source, directory / name)
        with open(directory / name, "rb") as stream:
            os.fsync(stream.fileno())
        if file_digest(directory / name) != index.file_by_path[_setup_path(name)].digest:
            raise DigestMismatchError(f"{source}: changed while it was being packed")
    write_file(directory / INDEX_NAME, encode_bundle(index))
    write_file(directory / LOCK_NAME, encode_lock(_travelling(request.lock)))
    publics = [key.public for key in request.keys]
    write_file(directory / README_NAME, readme_text(index, publics))


def _write_sums(directory: Path, known: Mapping[str, Digest]) -> None:
    digests = dict(known)
    for path in sorted(directory.iterdir()):
        if path.name not in digests:
            digests[path.name] = file_digest(path)
    write_file(directory / SUMS_NAME, encode_sums(digests))
