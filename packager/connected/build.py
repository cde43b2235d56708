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
from packager.connected.cache import Cache
from packager.connected.evidence.licence import check_accepted
from packager.connected.expected import LARGEST_WEIGHT, expect, expected_footprint
from packager.connected.inside.remote_code import fetch_as_it_is, fetch_stripped
from packager.connected.inside.secrets import Secrets, check_documents, check_members
from packager.connected.packing.delta import Delta, SetupDelta, leave_out, leave_out_setup
from packager.connected.packing.footprint import Footprint, check_place, check_room
from packager.connected.packing.layout import Member, PayloadPlan, plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.connected.packing.spares import write_spares
from packager.connected.packing.unfinished import going_on
from packager.connected.provisions.carried import check_targets, provide
from packager.connected.provisions.documents import README_NAME, SETUP_NAME, readme_text
from packager.connected.provisions.wheels import engine_title
from packager.connected.signing.keys import SigningKey
from packager.connected.signing.model_signing import model_signature_sizes
from packager.connected.signing.provenance import envelope_sizes
from packager.connected.signing.sign import sign_bundle
from packager.connected.source.adapters import fetch_adapters
from packager.connected.source.local import read_text
from packager.connected.source.signature import check_source_signature
from packager.connected.statements import STATEMENTS, gather, setup_parts, statements
from packager.connected.variants.gguf_types import check_gguf_variants
from packager.connected.variants.making import MadeVariant, make_variants
from packager.connected.variants.schemes import check_compressed_variants
from packager.connected.workshop import Workshop
from packager.errors import DigestMismatchError, PolicyError, UsageError
from packager.evidence.materials import Materials
from packager.format.bundle import INDEX_NAME, LOCK_NAME, Bundle, Origin, encode_bundle
from packager.format.digest import Digest
from packager.format.held import SETUP_DIRECTORY
from packager.format.inventory import Inventory
from packager.format.lock import Folder, HubCommit, Lock, encode_lock
from packager.format.recipe import Recipe
from packager.format.sizes import format_size
from packager.format.statement import PROVENANCE_NAME
from packager.format.sums import SUMS_NAME, encode_sums, spare_name
from packager.format.timestamps import format_timestamp, parse_timestamp
from packager.format.volumes import ParityVolume, Payload
from packager.progress import Progress
from packager.quantize.executors.job import Executor
from packager.quantize.executors.threads import Threads
from packager.store.atomic import write_file
from packager.store.digests import file_digest
from packager.trust.keys import ML_DSA_87, P256

SPARED = (INDEX_NAME, LOCK_NAME, README_NAME, SETUP_NAME, *STATEMENTS)
# At most: the DER of two integers (RFC 3279 s.2.2.3), and FIPS 204's.
SIGNATURE_SIZES = {P256: 72, ML_DSA_87: 4627}


@dataclass(frozen=True)
class BuildRequest:
    """What a person asked for, and the moment that goes into the index.

    ``volume_size`` in bytes, ``None`` for auto (see ``layout``); ``parity`` volumes, ``None`` for
    as many as the recipe says. What ``base`` holds is left out, and what sets airpack up, if the
    base shows that it is there; unless ``with_setup``. ``accepted_by`` is the person who accepts
    the licences.
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
    with_setup: bool = False
    executor: Executor = field(default_factory=Threads)
    accepted_by: str | None = None
    strip_remote_code: bool = False

    @property
    def parity_volumes(self) -> int:
        """How many parity volumes there will be."""
        return self.recipe.medium.parity if self.parity is None else self.parity

    @property
    def setup_base(self) -> Inventory | None:
        """The base, as far as it decides on what sets airpack up."""
        return None if self.with_setup else self.base

    @property
    def command(self) -> tuple[str, ...]:
        """What makes the same again from the same recipe and lock, as far as it was said."""
        words = ["airpack", "build", "RECIPE", "-o", "DIR", "--locked"]
        words += ["--volume-size", str(self.volume_size or "auto")]
        words += ["--parity", str(self.parity_volumes)]
        words += ["--base", self.base.digest.hex] if self.base else []
        words += ["--with-setup"] if self.with_setup else []
        words += ["--strip-remote-code"] if self.strip_remote_code else []
        return tuple(words)


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


def check_request(request: BuildRequest) -> Path:
    """Refuse at once what can be refused at once; returns where the bundle will be.

    Raises ``UsageError``, ``PolicyError``, and ``HostError`` or ``NoSpaceError`` for a disk that
    cannot be written to, is certainly too small, or takes no volumes of the size asked for.
    """
    directory = check_output(request.recipe, request.output)
    check_targets(request.recipe.targets)
    check_gguf_variants(request.recipe)
    check_compressed_variants(request.recipe)
    _check_expiry(request)
    check_accepted(request.lock, request.accepted_by)
    check_place(request.output, request.volume_size)
    _check_expected(request, directory, {}, {})
    return directory


def _check_expected(
    request: BuildRequest, directory: Path, sources: Mapping[str, Path], setup: Mapping[str, int]
) -> None:
    """Find out before the hours of work that the bundle will not fit, as far as can be known."""
    if request.base is None:  # else all of it may stay at home
        expected = expect(request.recipe, request.lock, sources, weight_size=LARGEST_WEIGHT)
        footprint = expected_footprint(expected, setup, request.volume_size, request.parity_volumes)
        check_room(directory, footprint)


def build(request: BuildRequest, cache: Cache, progress: Progress) -> Path:
    """Build the bundle and return its directory.

    Raises an ``AirpackError`` of the class of what was wrong; what was fetched and quantized by
    then stays in the cache, what was packed beside the bundle's place, and the next build goes
    on from there.
    """
    recipe, lock = request.recipe, request.lock
    directory = check_request(request)
    check_source_signature(recipe, request.recipe_folder, lock, cache, progress)
    fetch_source = fetch_stripped if request.strip_remote_code else fetch_as_it_is
    source = fetch_source(lock, cache, progress, recipe_folder=request.recipe_folder)
    adapters = fetch_adapters(lock, cache, progress, recipe_folder=request.recipe_folder)
    provisions = provide(recipe, cache, progress)
    members = provisions.members()
    _check_expected(request, directory, source.files, {m.path: m.size for m in members})
    workshop = Workshop(
        recipe=recipe,
        recipe_folder=request.recipe_folder,
        lock=source.lock,
        sources=source.files,
        text=_smoke_text(request),
        engine=engine_title(),
        libraries=provisions.libraries,
        cache=cache,
        progress=progress,
        executor=request.executor,
        adapters=adapters,
        stripped=source.removed,
    )
    made = make_variants(workshop)
    delta = leave_out([m for variant in made for m in variant.members], request.base)
    setup = leave_out_setup(members, request.setup_base)
    _say_delta(request, delta, setup, progress)
    plan = plan_payload(
        [*setup.carried, *delta.carried], request.volume_size, request.parity_volumes
    )
    draft = _index(request, workshop, made, delta, setup, plan, *plan.draft())
    materials = gather(
        draft,
        workshop,
        _travelling(lock),
        made,
        setup_parts(members, setup, progress),
        request.command,
        request.accepted_by,
    )
    _refuse_secrets(request, cache, [*setup.carried, *delta.carried], materials)
    footprint = _footprint(request, materials, plan, setup)
    for line in footprint.lines():
        progress.note(line)
    names = {volume.name for volume in plan.volumes}
    with (
        _only_builder(directory, cache, progress),
        going_on(directory, names, progress) as place,
    ):
        check_output(recipe, request.output)
        check_room(directory, footprint)
        packed = write_payload(plan, place, progress)
        sums = write_parity(plan, packed.payload, place, progress)
        index = _index(request, workshop, made, delta, setup, plan, packed.payload, sums.volumes)
        _write_small_files(place, request, replace(materials, bundle=index), setup)
        write_spares(place, SPARED)
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


def _say_delta(request: BuildRequest, delta: Delta, setup: SetupDelta, progress: Progress) -> None:
    if request.base is None:
        return
    progress.note(
        f"{len(delta.held)} files, {format_size(delta.held_size)}, stay at home: the base has them"
    )
    if setup.set_up_with:
        progress.note(
            f"airpack itself, {format_size(setup.set_up_with.size)}, stays at home too: the host "
            f"was set up with the same by {setup.set_up_with.bundle}"
        )
    elif not request.with_setup:
        progress.note("airpack itself travels: by the base, the host was not set up with the same")


def _refuse_secrets(
    request: BuildRequest, cache: Cache, members: Sequence[Member], materials: Materials
) -> None:
    """Refuse to pack what must not travel; of the documents there are drafts by now."""
    recipe = request.recipe
    said = (recipe.name, recipe.variants, recipe.smoke, _travelling(request.lock))
    secrets = Secrets.of_environment(
        {"the cache's path": cache.root, "the recipe's path": request.recipe_folder},
        said=f"{said} {request.accepted_by}",
    )
    check_members(members, secrets)
    check_documents(_documents(request, materials), secrets)


def _footprint(
    request: BuildRequest, materials: Materials, plan: PayloadPlan, setup: SetupDelta
) -> Footprint:
    """What the bundle takes: a draft of its index has all but the digests, of one size."""
    draft, documents = materials.bundle, _documents(request, materials)
    sizes = {_beside(member): member.size for member in setup.carried}
    sizes |= {name: len(data) for name, data in documents.items()}
    sizes |= {spare_name(name): sizes[name] for name in SPARED}
    names = [*sizes, *(volume.name for volume in draft.volume_files)]
    sums = len(encode_sums(dict.fromkeys(names, draft.lock)))
    publics = [key.public for key in request.keys]
    signatures = [SIGNATURE_SIZES[public.algorithm] for public in publics]
    signatures += [
        *envelope_sizes(documents[PROVENANCE_NAME], signatures),
        *model_signature_sizes(draft, publics),
    ]
    return Footprint(plan.cut.sizes, plan.cut.parity, (*sizes.values(), *[sums, *signatures] * 2))


def _index(
    request: BuildRequest,
    workshop: Workshop,
    made: Sequence[MadeVariant],
    delta: Delta,
    setup: SetupDelta,
    plan: PayloadPlan,
    payload: Payload,
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
        origin=replace(_origin(lock), stripped=workshop.stripped),
        lock=Digest.of(encode_lock(lock)),
        payload=payload,
        volumes=plan.volumes,
        parity=parity,
        files=plan.files,
        variants=tuple(variant.variant for variant in made),
        targets=recipe.targets,
        held=delta.held,
        base=request.base.digest if request.base else None,
        set_up_with=setup.set_up_with,
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
    directory: Path, request: BuildRequest, materials: Materials, setup: SetupDelta
) -> None:
    for member in setup.carried:
        path = directory / _beside(member)
        shutil.copyfile(member.source, path)
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
        if file_digest(path) != member.digest:
            raise DigestMismatchError(f"{member.source}: changed while it was being packed")
    for name, data in _documents(request, materials).items():
        write_file(directory / name, data)


def _beside(member: Member) -> str:
    """The name that a file of ``setup/`` has on the medium, beside the payload."""
    return member.path.removeprefix(f"{SETUP_DIRECTORY}/")


def _documents(request: BuildRequest, materials: Materials) -> dict[str, bytes]:
    """What is written for this bundle alone, by name."""
    publics = [key.public for key in request.keys]
    signed = {
        INDEX_NAME: encode_bundle(materials.bundle),
        LOCK_NAME: encode_lock(materials.lock),
    }
    readme = readme_text(materials.bundle, publics)
    return {**signed, **statements(materials, signed, publics), README_NAME: readme}


def _write_sums(directory: Path, known: Mapping[str, Digest]) -> None:
    digests = dict(known)
    for path in sorted(directory.iterdir()):
        if path.name not in digests:
            digests[path.name] = file_digest(path)
    write_file(directory / SUMS_NAME, encode_sums(digests))
