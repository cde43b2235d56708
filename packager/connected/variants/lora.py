"""LoRA adapters as GGUF: converted, bound to the variant they change, heard with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.connected.artefacts import Artefact, find_file, keep_file
from packager.connected.naming import about_variant
from packager.connected.source.adapters import MODEL_CONFIG
from packager.connected.variants.gguf import Model
from packager.connected.variants.goldens import ConvertedAdapter, golden_of
from packager.connected.workshop import Workshop, key_of
from packager.format.adapter import AdapterBase
from packager.format.digest import Digest
from packager.format.foreign_json import parse_json_object
from packager.format.golden import Golden
from packager.quantize.lora import VERSION as LORA_VERSION
from packager.quantize.lora.convert import Adapter, read_adapter, write_adapter
from packager.quantize.source import MAX_CONFIG_SIZE
from packager.store.atomic import read_capped

_SUFFIX = ".lora.gguf"


@dataclass(frozen=True)
class MadeAdapter:
    """An adapter's file, what it is bound to, and how the two answer together."""

    file: ConvertedAdapter
    base: AdapterBase
    golden: Golden


def convert_adapters(workshop: Workshop) -> dict[str, ConvertedAdapter]:
    """The adapters of the recipe as GGUF files, by variant, from the cache or made now.

    To be called by the only maker, and before the hours that the models take. Raises
    ``UsageError`` for an adapter that llama.cpp cannot apply, ``MalformedError`` for one that is
    broken or made for another model.
    """
    variants = [v.name for v in workshop.recipe.variants if v.adapter is not None]
    return {variant: _convert(workshop, variant) for variant in variants}


def bind_adapters(
    workshop: Workshop, files: Mapping[str, ConvertedAdapter], models: Mapping[str, Model]
) -> dict[str, MadeAdapter]:
    """The adapters in ``files`` with the GGUF variants they are for, out of ``models``.

    To be called by the only maker. Raises ``EngineError``.
    """
    made = {}
    for variant in workshop.recipe.variants:
        if variant.adapter is not None:
            model, file = models[variant.adapter.base], files[variant.name]
            golden = golden_of(workshop, variant.name, model, file)
            base = AdapterBase(variant.adapter.base, model.digest)
            made[variant.name] = MadeAdapter(file, base, golden)
    return made


def _convert(workshop: Workshop, variant: str) -> ConvertedAdapter:
    config = read_capped(workshop.sources[MODEL_CONFIG].resolve(), MAX_CONFIG_SIZE)
    name = f"{workshop.recipe.name}-{variant}"
    key = _key(workshop, variant, name, config)
    with about_variant(variant):
        model = parse_json_object(config, what=MODEL_CONFIG)
        adapter = read_adapter(workshop.adapters[variant], model)
        cache, progress = workshop.cache, workshop.progress
        held = find_file(cache, key, _SUFFIX, name=variant, progress=progress)
        file = held or _write(workshop, adapter, key, name, variant)
    return ConvertedAdapter(file.path, file.digest, adapter.type.name)


def _write(workshop: Workshop, adapter: Adapter, key: Digest, name: str, variant: str) -> Artefact:
    cache, progress = workshop.cache, workshop.progress
    out = cache.temporary(key, _SUFFIX)
    try:
        write_adapter(adapter, out, name=name, progress=progress)
        return keep_file(cache, key, _SUFFIX, out, name=variant, progress=progress)
    finally:
        out.unlink(missing_ok=True)


def _key(workshop: Workshop, variant: str, name: str, config: bytes) -> Digest:
    """What the file is kept under: the digest of all that its bytes depend on."""
    files = workshop.lock.adapter(variant).files
    return key_of(
        {
            "what": "lora",
            "convert": LORA_VERSION,
            "name": name,
            "model": Digest.of(config).hex,
            "files": [[file.path, str(file.content)] for file in files],
        }
    )
