"""What a build will make, as far as it can be known before the hours that it takes.

Source files travel as they are, and the lock has their sizes. How large a GGUF file will be
follows from the headers of the weights, once they are here; before that, from their size alone.
One that was made before is known to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from packager.connected.cache import Cache
from packager.connected.delta import leave_out_setup
from packager.connected.footprint import Footprint
from packager.connected.layout import cut_payload
from packager.connected.local import source_path
from packager.connected.provisions import provisions_at_hand
from packager.connected.variants import Model, is_evidence, model_made_before
from packager.connected.wheels import engine_title
from packager.format.bundle import variant_directory
from packager.format.digest import Digest
from packager.format.held import SETUP_DIRECTORY, Setup
from packager.format.inventory import Inventory
from packager.format.lock import SHA256, Folder, Lock, LockedFile
from packager.format.recipe import GGUF, SAFETENSORS, Recipe, Variant
from packager.format.tar import plan_tar
from packager.progress import Progress
from packager.quantize.plan import make_plan
from packager.quantize.types import file_type

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
    """The models that were quantized before, by their type, as far as the cache has them."""
    types = {v.type for v in recipe.variants if v.format == GGUF and v.type is not None}
    engine = engine_title()
    found = {name: model_made_before(cache, recipe, lock, engine, name) for name in types}
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

    Of GGUF files those have a digest that are in ``models``, by their type. Without ``sources`` the
    sizes of others are guessed, for a source that has ``weight_size`` bytes for a weight. Raises
    what quantizing would: ``UsageError`` for what cannot be converted, ``IntegrityError`` and
    ``UnsafeContentError`` for a source that is broken.
    """
    carried: list[ExpectedFile] = []
    held: list[ExpectedFile] = []
    for variant in recipe.variants:
        directory = variant_directory(recipe.name, variant.name)
        files = [*_source_files(lock, variant, directory)]
        if variant.format == GGUF and variant.type is not None:
            size, digest = _gguf(recipe, lock, sources, models, variant.type, weight_size)
            path = f"{directory}/{recipe.name}-{variant.name}.gguf"
            is_exact = bool(digest or sources)
            files.insert(0, ExpectedFile(path, size, digest, is_exact))
        for file in files:
            there = base and file.digest and base.find(file.digest, file.size)
            (held if there else carried).append(file)
    return Expected(tuple(carried), tuple(held))


def _gguf(
    recipe: Recipe,
    lock: Lock,
    sources: Mapping[str, Path],
    models: Mapping[str, Model],
    type_name: str,
    weight_size: int,
) -> tuple[int, Digest | None]:
    """The size of the GGUF file of that type, and its digest if it is made."""
    if type_name in models:
        model = models[type_name]
        return model.path.stat().st_size, model.digest
    if sources:
        return make_plan(sources, type_name, name=recipe.name).size, None
    return _guessed_size(lock, type_name, weight_size), None


def _source_files(lock: Lock, variant: Variant, directory: str) -> Iterator[ExpectedFile]:
    is_exact = variant.format in (GGUF, SAFETENSORS)
    for file in sorted(lock.files, key=lambda file: file.path):
        if variant.format != GGUF or is_evidence(file.path):
            yield ExpectedFile(f"{directory}/{file.path}", file.size, _digest(file), is_exact)


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
