"""What a build will make, as far as it can be known before the hours that it takes.

Source files travel as they are, and the lock has their sizes. How large a GGUF file will be
follows from the headers of the weights, once they are here; before that, from their size alone.
One that was made before is known to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from packager.connected.cache import Cache
from packager.connected.evidence.beside import is_evidence
from packager.connected.naming import about_variant
from packager.connected.packing.delta import leave_out_setup
from packager.connected.packing.footprint import Footprint
from packager.connected.packing.layout import cut_payload
from packager.connected.provisions.carried import provisions_at_hand
from packager.connected.provisions.wheels import engine_title
from packager.connected.source.local import source_path
from packager.connected.variants.gguf import Model, model_made_before
from packager.connected.variants.gguf_types import asked_for
from packager.connected.variants.published import find_files, is_gguf
from packager.connected.variants.schemes import scheme_of
from packager.format.digest import Digest
from packager.format.held import SETUP_DIRECTORY, Setup
from packager.format.inventory import Inventory
from packager.format.lock import SHA256, Folder, Lock, LockedFile
from packager.format.recipe import COMPRESSED_TENSORS, GGUF, LORA, Recipe, Variant
from packager.format.tar import plan_tar
from packager.format.variant import variant_directory
from packager.progress import Progress
from packager.quantize.plan import make_plan
from packager.quantize.types import file_type
from packager.quantize.wanted import Wanted

# airpack, the engine and what they need, for four Pythons on x86-64, as they were at this version.
SETUP_SIZE = 60 << 20
USUAL_WEIGHT = 2  # bytes of one weight in a source, as nearly all models are published
LARGEST_WEIGHT = 4
# Not consolidated.safetensors, which holds the same weights once more.
_SHARD = re.compile(r"model(-[0-9]+-of-[0-9]+)?\.safetensors\Z")


@dataclass(frozen=True)
class ExpectedFile:
    """A file of the payload. ``digest`` is ``None`` before it is made; ``size`` may be a guess."""

    path: str
    size: int
    digest: Digest | None
    is_exact: bool


@dataclass(frozen=True)
class Expected:
    """The files of all variants that will travel, and those that the host holds already."""

    carried: tuple[ExpectedFile, ...]
    held: tuple[ExpectedFile, ...]

    @property
    def size(self) -> int:
        """The bytes of what will travel."""
        return sum(file.size for file in self.carried)

    @property
    def held_size(self) -> int:
        """The bytes that stay at home."""
        return sum(file.size for file in self.held)

    @property
    def is_exact(self) -> bool:
        """Whether each size is the one that it will be."""
        return all(file.is_exact for file in self.carried)

    @property
    def is_made(self) -> bool:
        """Whether no GGUF file waits to be made, of which nobody knows yet if the base has it."""
        return all(file.digest for file in self.carried if file.path.endswith(".gguf"))

    def payload_size(self, setup: Mapping[str, int]) -> int:
        """The bytes of the payload with files of the sizes ``setup``, by their paths in it."""
        return plan_tar([*setup.items(), *((f.path, f.size) for f in self.carried)]).size


@dataclass(frozen=True)
class ExpectedSetup:
    """What will travel of what sets airpack up: sizes in bytes, by path in the payload.

    Not ``is_exact``: nobody has fetched it yet, and all of it is taken to travel.
    """

    sizes: Mapping[str, int]
    set_up_with: Setup | None
    is_exact: bool


def expect_setup(
    recipe: Recipe, cache: Cache, base: Inventory | None, progress: Progress
) -> ExpectedSetup:
    """What will travel of ``setup/``, as far as the wheels are in the cache; fetches none."""
    provisions = provisions_at_hand(recipe, cache, progress)
    if provisions is None:
        return ExpectedSetup({SETUP_DIRECTORY: SETUP_SIZE}, None, is_exact=False)
    delta = leave_out_setup(provisions.members(), base)
    sizes = {member.path: member.size for member in delta.carried}
    return ExpectedSetup(sizes, delta.set_up_with, is_exact=True)


def sources_at_hand(lock: Lock, cache: Cache, recipe_folder: Path) -> Mapping[str, Path]:
    """The files of the source by their path there, if all are on this disk; else nothing.

    They are not read: what they hold is checked by the build.
    """
    if isinstance(lock.source, Folder):
        folder = recipe_folder / lock.source.path
        return {file.path: source_path(folder, file.path) for file in lock.files}
    files = {file.path: cache.blob(file.content) for file in lock.files}
    return files if all(path.exists() for path in files.values()) else {}


def models_at_hand(recipe: Recipe, lock: Lock, cache: Cache) -> Mapping[str, Model]:
    """The models that were quantized before, by their variant, as far as the cache has them.

    Not those weighed by a matrix, whose name in the cache depends on what it holds.
    """
    engine = engine_title()
    found = {
        variant.name: model_made_before(cache, recipe, lock, engine, wanted)
        for variant in recipe.variants
        if variant.type is not None and not (wanted := _wanted(recipe, variant)).is_promised
    }
    return {name: model for name, model in found.items() if model is not None}


def expect(
    recipe: Recipe,
    lock: Lock,
    sources: Mapping[str, Path],
    base: Inventory | None = None,
    *,
    models: Mapping[str, Model] = MappingProxyType({}),
    weight_size: int = USUAL_WEIGHT,
) -> Expected:
    """What the variants of ``recipe`` will have, less what ``base`` is seen to hold.

    Of GGUF files those have a digest that are in ``models``, by their variant. Without ``sources``
    the sizes of others are guessed, for a source that has ``weight_size`` bytes for a weight.
    Raises what quantizing would: ``UsageError`` for what cannot be converted, ``IntegrityError``
    and ``UnsafeContentError`` for a source that is broken.
    """
    carried: list[ExpectedFile] = []
    held: list[ExpectedFile] = []
    for variant in recipe.variants:
        directory = variant_directory(recipe.name, variant.name)
        made = _made_files(recipe, lock, sources, models, variant, weight_size)
        for file in (*made, *_source_files(lock, variant)):
            there = base and file.digest and base.find(file.digest, file.size)
            (held if there else carried).append(replace(file, path=f"{directory}/{file.path}"))
    return Expected(tuple(carried), tuple(held))


def _wanted(recipe: Recipe, variant: Variant) -> Wanted:
    """What file the GGUF ``variant`` will be; of its matrix only that there will be one."""
    wanted = Wanted(*asked_for(variant))
    gives_matrix = recipe.calibration is not None and recipe.calibration.gives_matrix
    return replace(wanted, is_promised=gives_matrix and wanted.quantizes)


def _made_files(
    recipe: Recipe,
    lock: Lock,
    sources: Mapping[str, Path],
    models: Mapping[str, Model],
    variant: Variant,
    weight_size: int,
) -> Iterator[ExpectedFile]:
    """What is made for ``variant``, or of several published files is the one it names."""
    path = f"{recipe.name}-{variant.name}.gguf"
    if variant.name in models:
        model = models[variant.name]
        yield ExpectedFile(path, model.path.stat().st_size, model.digest, is_exact=True)
    elif variant.file is not None:
        locked = {file.path: file for file in lock.files}
        for found in find_files(variant, locked, "the source"):
            file = locked[found]
            yield ExpectedFile(PurePosixPath(found).name, file.size, _digest(file), is_exact=True)
    elif variant.type is not None and sources:
        wanted = _wanted(recipe, variant)
        with about_variant(variant.name):
            size = make_plan(sources, wanted, name=recipe.name).size
        yield ExpectedFile(path, size, None, is_exact=True)
    elif variant.type is not None:
        size = _guessed_size(lock, variant.type, weight_size)
        yield ExpectedFile(path, size, None, is_exact=False)
    elif variant.format == LORA:
        size = sum(file.size for file in lock.adapter(variant.name).files)
        yield ExpectedFile(path, size // LARGEST_WEIGHT, None, is_exact=False)


def _source_files(lock: Lock, variant: Variant) -> Iterator[ExpectedFile]:
    """What travels of the source beside what is made."""
    if variant.format == LORA:
        return
    for file in sorted(lock.files, key=lambda file: file.path):
        if variant.format == COMPRESSED_TENSORS and _SHARD.match(file.path):
            size = file.size * scheme_of(variant).bits // (8 * USUAL_WEIGHT)
            yield ExpectedFile(file.path, size, None, is_exact=False)
        elif not is_gguf(file.path) and (variant.format != GGUF or is_evidence(file.path)):
            yield ExpectedFile(file.path, file.size, _digest(file), is_exact=True)


def _digest(file: LockedFile) -> Digest | None:
    return Digest(file.content.hex) if file.content.kind == SHA256 else None


def _guessed_size(lock: Lock, type_name: str, weight_size: int) -> int:
    """The bytes of the weights in ``lock`` once they are of the type that most tensors get."""
    kind = file_type(type_name).default
    source = sum(file.size for file in lock.files if _SHARD.match(file.path))
    return source // weight_size * kind.block_size // kind.block


def expected_footprint(
    expected: Expected, setup: Mapping[str, int], volume_size: int | None, parity: int
) -> Footprint:
    """What the bundle takes without its documents; ``setup`` has sizes by path in the payload.

    Raises ``UsageError`` where volumes of ``volume_size`` bytes would be too many.
    """
    cut = cut_payload(expected.payload_size(setup), volume_size, parity)
    return Footprint(cut.sizes, parity, tuple(setup.values()))
