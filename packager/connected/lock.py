"""``airpack lock``: a recipe resolved to the commit and the content ids that will be fetched.

Everything that can be refused without the weights is refused here, in seconds rather than after
an hour of fetching: a licence that is not allowed, pickles, code, an architecture or a type
that this version cannot quantize, and whatever of a recipe it does not make yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.evidence.licence import find_licence, limit_of
from packager.connected.source.adapters import lock_adapters, refuse_adapters
from packager.connected.source.fetch import fetch_files
from packager.connected.source.hub import Hub
from packager.connected.source.local import list_folder, lock_folder, lock_texts, source_path
from packager.connected.source.signature import lock_folder_signature, lock_hub_signature
from packager.connected.variants.gguf_types import check_gguf_variants, check_texts
from packager.connected.variants.locked_matrix import lock_matrix
from packager.connected.variants.published import (
    is_gguf,
    model_files,
    needs_weights,
    wanted_files,
)
from packager.connected.variants.schemes import check_compressed_variants
from packager.errors import UnsafeContentError, UsageError
from packager.format.foreign_json import parse_json_object
from packager.format.lock import (
    LOCK_SUFFIX,
    MAX_LOCK_SIZE,
    Folder,
    HubCommit,
    Lock,
    LockedFile,
    encode_lock,
    parse_lock,
)
from packager.format.recipe import (
    COMPRESSED_TENSORS,
    GGUF,
    MAX_RECIPE_SIZE,
    SAFETENSORS,
    FolderSource,
    HubSource,
    Recipe,
    Variant,
    parse_recipe,
)
from packager.progress import Progress
from packager.quantize.architectures import check_supported, find_architecture
from packager.quantize.prequantized import method_of, quantized_already
from packager.runtime.content import check_names, is_pickle_name
from packager.store.atomic import read_capped, write_file

CONFIG = "config.json"
MAX_CONFIG_SIZE = 16 << 20


def read_recipe(path: Path) -> Recipe:
    """The recipe in the file ``path``; raises ``ParseError`` or ``UsageError``."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no such recipe", hint="airpack init SOURCE -o RECIPE")
    return parse_recipe(read_capped(path.resolve(), MAX_RECIPE_SIZE + 1), where=path.name)


def lock_path(recipe: Path) -> Path:
    """Where the lock of the recipe file ``recipe`` is kept."""
    return recipe.with_suffix(LOCK_SUFFIX)


def lock_recipe(path: Path, progress: Progress) -> Lock:
    """Resolve the recipe file ``path`` and write its lock beside it."""
    lock = resolve(read_recipe(path), path.parent, progress)
    write_file(lock_path(path), encode_lock(lock))
    return lock


def read_lock(path: Path) -> Lock:
    """The lock of the recipe file ``path``; raises ``UsageError`` if it is of another recipe."""
    place = lock_path(path)
    again = f"airpack lock {path}"
    if not place.is_file():
        raise UsageError(f"{place}: there is no lock", hint=again)
    lock = parse_lock(read_capped(place, MAX_LOCK_SIZE), where=place.name)
    if lock.recipe != read_recipe(path).digest:
        raise UsageError(f"{place}: the recipe has changed since it was locked", hint=again)
    return lock


PLATFORM = "linux_x86_64"  # what there is an engine and a libgomp for


def unsupported(recipe: Recipe) -> tuple[str, ...]:
    """What ``recipe`` asks for that this version does not make, each in a few words."""
    return tuple(f"a bundle for {t.platform}" for t in recipe.targets if t.platform != PLATFORM)


def check_buildable(recipe: Recipe) -> None:
    """Raises ``UsageError`` if ``recipe`` asks for what this version does not make."""
    if facts := unsupported(recipe):
        raise UsageError(
            f"recipe: this version does not make {'; '.join(facts)}",
            hint=f"leave that target out; this version has an engine for {PLATFORM}",
        )
    check_gguf_variants(recipe)
    check_compressed_variants(recipe)


def resolve(
    recipe: Recipe,
    recipe_folder: Path,
    progress: Progress,
    *,
    cache: Cache | None = None,
    hub: Hub | None = None,
) -> Lock:
    """Pin what ``recipe``, a file in ``recipe_folder``, asks for.

    Raises ``UsageError`` for what cannot be built, ``UnsafeContentError`` for what may not
    travel, ``PolicyError`` for the licence, ``HubError`` where the hub does not answer.
    """
    check_buildable(recipe)
    if isinstance(recipe.source, HubSource):
        lock = _resolve_hub(
            recipe,
            recipe.source,
            recipe_folder,
            cache or Cache.of_environment(),
            hub or Hub(progress=progress),
            progress,
        )
    else:
        lock = _resolve_folder(recipe, recipe.source, recipe_folder, progress)
    adapters = lock_adapters(recipe, lock, recipe_folder, progress, cache=cache, hub=hub)
    lock = replace(lock, adapters=adapters)
    progress.note(f"locked {len(lock.files)} files at {lock.revision[:12]}")
    return lock


def _resolve_hub(
    recipe: Recipe,
    source: HubSource,
    recipe_folder: Path,
    cache: Cache,
    hub: Hub,
    progress: Progress,
) -> Lock:
    snapshot = hub.resolve(source.repository, source.revision)
    files = {file.path: file for file in snapshot.files}
    wanted = _wanted(recipe, files, source.repository)
    described = read_small_files(snapshot.commit, snapshot.files, cache, progress, hub)
    licence = _check_description(recipe, described, source.repository, progress)
    return Lock(
        recipe=recipe.digest,
        source=snapshot.commit,
        licence=licence,
        files=tuple(files[path] for path in wanted),
        texts=_lock_named(recipe, recipe_folder),
        signature=lock_hub_signature(recipe, recipe_folder, files, progress),
        gated=snapshot.gated,
    )


def _resolve_folder(
    recipe: Recipe, source: FolderSource, recipe_folder: Path, progress: Progress
) -> Lock:
    folder = recipe_folder / source.path
    paths = list_folder(folder)
    wanted = _wanted(recipe, paths, source.path)
    described = read_folder_files(folder, paths)
    licence = _check_description(recipe, described, source.path, progress)
    return Lock(
        recipe=recipe.digest,
        source=Folder(source.path),
        licence=licence,
        files=lock_folder(folder, wanted, progress),
        texts=_lock_named(recipe, recipe_folder),
        signature=lock_folder_signature(recipe, recipe_folder, folder, paths, progress),
    )


def _lock_named(recipe: Recipe, recipe_folder: Path) -> tuple[LockedFile, ...]:
    """The files that ``recipe`` itself names, in order of path."""
    texts = lock_texts(recipe_folder, recipe.texts)
    check_texts(recipe, texts)
    if recipe.calibration is None or recipe.calibration.matrix is None:
        return texts
    matrix = lock_matrix(recipe_folder, recipe.calibration.matrix)
    return tuple(sorted((*texts, matrix), key=lambda file: file.path))


def _wanted(recipe: Recipe, paths: Iterable[str], source: str) -> tuple[str, ...]:
    """The paths that travel, in order; raises unless they are safe and hold the weights."""
    present = tuple(paths)
    wanted = wanted_files(recipe, present, source)
    refuse_adapters(wanted)
    if needs_weights(recipe) and not any(path.endswith(".safetensors") for path in wanted):
        raise _no_weights(recipe, present, source)
    check_names(wanted)
    return wanted


def _no_weights(
    recipe: Recipe, paths: tuple[str, ...], source: str
) -> UnsafeContentError | UsageError:
    safe = [path for path in paths if path.endswith(".safetensors")]
    if safe:
        return UsageError(
            f"{source}: the recipe includes no weights; there are {_some(safe)}",
            hint="name them in source.include",
        )
    if recipe.quality is not None and all(v.file is not None for v in recipe.variants):
        return UsageError(
            f"{source}: has no safetensors weights, so there is no original beside which"
            " quality could be measured",
            hint="leave quality out of the recipe",
        )
    if models := [path for path in paths if is_gguf(path)]:
        return UsageError(
            f"{source}: has no safetensors weights; there are GGUF files",
            hint="bundle one as it is: "
            f"{{name: NAME, format: gguf, file: {min(model_files(models))!a}}}",
        )
    pickles = [path for path in paths if is_pickle_name(path)]
    if pickles:
        return UnsafeContentError(
            f"{source}: has no safetensors weights, only pickles, which run code when they are"
            f" loaded: {_some(pickles)}",
            hint="look for a revision or a conversion of the model in safetensors",
        )
    return UsageError(f"{source}: has no safetensors weights")


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(f"{path[:100]!a}" for path in sorted(paths)[:3]) + more


def read_small_files(
    commit: HubCommit, files: Iterable[LockedFile], cache: Cache, progress: Progress, hub: Hub
) -> Mapping[str, bytes]:
    """The card, the licence texts and the configuration at ``commit``, as far as there are any."""
    small = [file for file in files if file.size <= _limit(file.path)]
    fetched = fetch_files(commit, small, cache, progress, hub)
    return {name: read_capped(path, _limit(name)) for name, path in fetched.items()}


def read_folder_files(folder: Path, paths: Iterable[str]) -> Mapping[str, bytes]:
    """The card, the licence texts and the configuration in ``folder``, as far as there are any."""
    return {
        name: read_capped(source_path(folder, name), _limit(name))
        for name in paths
        if _limit(name) >= 0
    }


def _limit(path: str) -> int:
    return MAX_CONFIG_SIZE if path == CONFIG else limit_of(path)


def _check_description(
    recipe: Recipe, described: Mapping[str, bytes], source: str, progress: Progress
) -> str | None:
    """The licence, if that and the configuration are such as the recipe can be built from."""
    licence = find_licence(described, recipe.licences, source=source, progress=progress)
    if CONFIG in described:
        config = parse_json_object(described[CONFIG], what=CONFIG)
        for variant in recipe.variants:
            if not _is_carried(recipe, variant):
                _check_variant(variant, config, progress)
        _check_measurable(recipe, config)
        return licence
    for variant in recipe.variants:
        if variant.format != SAFETENSORS and not _is_carried(recipe, variant):
            raise UsageError(
                f"{source}: has no {CONFIG}, so it cannot be converted to {variant.format}"
            )
    return licence


def _is_carried(recipe: Recipe, variant: Variant) -> bool:
    """Whether ``variant`` is a published GGUF, and no original becomes one to measure it beside."""
    return variant.file is not None and recipe.quality is None


def _check_measurable(recipe: Recipe, config: Mapping[str, object]) -> None:
    """Refuse to measure a model that makes vectors: it says of no token how likely it is."""
    measured = recipe.quality is not None and any(v.format == GGUF for v in recipe.variants)
    if measured and find_architecture(config).is_encoder:
        raise UsageError(
            "recipe: quality: the model makes vectors, which have no perplexity",
            hint="leave quality out; the smoke test compares vectors with those of the build",
        )


def _check_variant(variant: Variant, config: Mapping[str, object], progress: Progress) -> None:
    """Refuse a variant that cannot be made of a model with the ``config``."""
    method = method_of(config)
    if variant.format == GGUF:
        check_supported(config)
    elif variant.format == COMPRESSED_TENSORS and method is not None:
        raise quantized_already(method)
    elif variant.format == SAFETENSORS and method is not None:
        progress.note(
            f"{variant.name}: the weights are quantized already, by {method}; they are carried so"
        )
