"""Where LoRA adapters come from: each from a source of its own, locked and fetched.

Of a source, PEFT's two files are taken and what tells of licences. What ``adapter_config.json``
says of the base's whereabouts stays behind: an adapter is bound to a variant of its own bundle,
and nothing is left that a loader could follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.evidence.beside import is_evidence
from packager.connected.evidence.licence import find_licence, limit_of
from packager.connected.naming import about_variant
from packager.connected.source.fetch import fetch_files
from packager.connected.source.hub import Hub
from packager.connected.source.local import check_folder, list_folder, lock_folder, source_path
from packager.errors import UnsafeContentError, UsageError
from packager.format.foreign_json import parse_json_object
from packager.format.lock import Folder, HubCommit, Lock, LockedAdapter, LockedFile
from packager.format.recipe import FolderSource, HubSource, Recipe
from packager.progress import Progress
from packager.quantize.lora.config import ADAPTER_CONFIG, AdapterConfig, parse_adapter_config
from packager.quantize.lora.convert import ADAPTER_WEIGHTS
from packager.quantize.source import MAX_CONFIG_SIZE
from packager.runtime.content import check_content, check_names, is_pickle_name
from packager.store.atomic import read_capped

MODEL_CONFIG = "config.json"


@dataclass(frozen=True)
class _Found:
    """A resolved source: ``described`` are its card, its licence texts and its configuration, as
    far as they are there and not too large."""

    name: str
    source: HubCommit | Folder
    files: tuple[LockedFile, ...]
    described: Mapping[str, bytes]
    gated: bool = False


def lock_adapters(
    recipe: Recipe,
    lock: Lock,
    recipe_folder: Path,
    progress: Progress,
    *,
    cache: Cache | None = None,
    hub: Hub | None = None,
) -> tuple[LockedAdapter, ...]:
    """Pin the adapters of ``recipe``, whose model is pinned in ``lock``, in order of variant.

    Raises ``UsageError`` for what llama.cpp cannot apply, ``UnsafeContentError`` for weights that
    may not travel, ``PolicyError`` for the licence, ``HubError``.
    """
    found: dict[str, _Found] = {}
    for variant in recipe.variants:
        if variant.adapter is None:
            continue
        if MODEL_CONFIG not in (file.path for file in lock.files):
            raise UsageError(
                f"variant {variant.name}: an adapter is converted by the model's {MODEL_CONFIG}, "
                "and the source has none that travels",
                hint="quantize the model here (type: instead of file:), or leave the adapter out",
            )
        source = variant.adapter.source
        with about_variant(variant.name):
            if isinstance(source, HubSource):
                hub = hub or Hub(progress=progress)
                cache = cache or Cache.of_environment()
                found[variant.name] = _look_up(source, cache, hub, progress)
            else:
                found[variant.name] = _look_into(source, recipe_folder, progress)
    return tuple(_locked(name, found[name], recipe, progress) for name in sorted(found))


def refuse_adapters(paths: Iterable[str]) -> None:
    """Refuse an adapter among the files of a model, where loaders look for one.

    transformers then loads the base that ``adapter_config.json`` names, from wherever that is,
    in place of the model beside it. Raises ``UnsafeContentError``.
    """
    for path in paths:
        if path.rpartition("/")[2] == ADAPTER_CONFIG:
            raise UnsafeContentError(
                f"{path}: an adapter, whose base loaders would look for elsewhere",
                hint="make it a variant, {name: NAME, format: lora, base: VARIANT, source: ...},"
                " or leave it out by source.exclude",
            )


def _look_up(source: HubSource, cache: Cache, hub: Hub, progress: Progress) -> _Found:
    snapshot = hub.resolve(source.repository, source.revision)
    wanted = _wanted((file.path for file in snapshot.files), source.repository)
    files = tuple(file for file in snapshot.files if file.path in wanted)
    small = [file for file in files if file.size <= _limit(file.path)]
    described = _read(fetch_files(snapshot.commit, small, cache, progress, hub))
    return _Found(source.repository, snapshot.commit, files, described, snapshot.gated)


def _look_into(source: FolderSource, recipe_folder: Path, progress: Progress) -> _Found:
    folder = recipe_folder / source.path
    wanted = _wanted(list_folder(folder), source.path)
    described = _read({path: source_path(folder, path) for path in wanted if _limit(path) >= 0})
    files = lock_folder(folder, wanted, progress)
    return _Found(source.path, Folder(source.path), files, described)


def _read(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: read_capped(path, _limit(name)) for name, path in files.items()}


def _limit(path: str) -> int:
    return MAX_CONFIG_SIZE if path == ADAPTER_CONFIG else limit_of(path)


def _wanted(paths: Iterable[str], source: str) -> tuple[str, ...]:
    """Of the ``paths`` in an adapter's source those that are fetched, in order."""
    present = tuple(paths)
    for needed in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if needed in present:
            continue
        if needed == ADAPTER_WEIGHTS and any(map(is_pickle_name, present)):
            raise UnsafeContentError(
                f"{source}: has no {needed}, only pickles, which run code when they are loaded",
                hint="save the adapter again: PEFT's save_pretrained writes safetensors",
            )
        raise UsageError(f"{source}: has no {needed}, so it is no adapter as PEFT saves them")
    wanted = tuple(
        path
        for path in sorted(present)
        if path in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) or ("/" not in path and is_evidence(path))
    )
    check_names(wanted)
    return wanted


def _locked(variant: str, found: _Found, recipe: Recipe, progress: Progress) -> LockedAdapter:
    licence = find_licence(found.described, recipe.licences, source=found.name, progress=progress)
    document = parse_json_object(found.described.get(ADAPTER_CONFIG, b""), what=ADAPTER_CONFIG)
    with about_variant(variant):
        config = parse_adapter_config(document)
    for line in _doubts(config, recipe):
        progress.note(f"{variant}: {line}")
    return LockedAdapter(variant, found.source, licence, found.files, found.gated)


def _doubts(adapter: AdapterConfig, recipe: Recipe) -> Iterator[str]:
    """What somebody should make sure of: a base of another name may be another model."""
    source = recipe.source
    ours = source.repository if isinstance(source, HubSource) else source.path
    if adapter.base_name and _last(adapter.base_name) != _last(ours):
        yield f"trained on {adapter.base_name[:200]!a}, to be applied to {ours!a}"


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def fetch_adapters(
    lock: Lock,
    cache: Cache,
    progress: Progress,
    *,
    recipe_folder: Path,
    hub: Hub | None = None,
) -> dict[str, Mapping[str, Path]]:
    """The locked files of each adapter, by variant: checked, and of allowed content.

    Raises as :func:`packager.connected.source.fetch.fetch` does.
    """
    found: dict[str, Mapping[str, Path]] = {}
    for adapter in lock.adapters:
        if isinstance(adapter.source, HubCommit):
            hub = hub or Hub(progress=progress)
            files = fetch_files(adapter.source, adapter.files, cache, progress, hub)
        else:
            files = check_folder(recipe_folder / adapter.source.path, adapter.files, progress)
        check_content(files)
        found[adapter.variant] = files
    return found
