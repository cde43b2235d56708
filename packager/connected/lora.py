"""LoRA adapters as GGUF: converted, bound to the variant they change, heard with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.connected.adapter_sources import MODEL_CONFIG
from packager.connected.goldens import ConvertedAdapter, golden_of
from packager.connected.models import Model
from packager.connected.workshop import Workshop, key_of
from packager.errors import AirpackError
from packager.format.adapter import AdapterBase
from packager.format.digest import Digest
from packager.format.foreign_json import parse_json_object
from packager.format.golden import Golden
from packager.quantize.lora import VERSION as LORA_VERSION
from packager.quantize.lora.convert import read_adapter, write_adapter
from packager.quantize.source import MAX_CONFIG_SIZE
from packager.store.atomic import read_capped, write_file
from packager.store.digests import file_digest

_SUFFIX, _SUM_SUFFIX = ".lora.gguf", ".lora.gguf.sha256"
_SUM_SIZE = 64


@dataclass(frozen=True)
class MadeAdapter:
    """An adapter's file, what it is bound to, and how the two answer together."""

    file: ConvertedAdapter
    base: AdapterBase
    golden: Golden


def make_adapters(workshop: Workshop, models: Mapping[str, Model]) -> dict[str, MadeAdapter]:
    """The adapters of the recipe by variant; ``models`` are the GGUF variants they are for.

    To be called by the only maker. Raises ``UsageError`` for an adapter that llama.cpp cannot
    apply, ``MalformedError`` for one that is broken or made for another model, ``EngineError``.
    """
    made = {}
    for variant in workshop.recipe.variants:
        if variant.adapter is not None:
            model = models[variant.adapter.base]
            file = _convert(workshop, variant.name)
            golden = golden_of(workshop, variant.name, model, file)
            base = AdapterBase(variant.adapter.base, model.digest)
            made[variant.name] = MadeAdapter(file, base, golden)
    return made


def _convert(workshop: Workshop, variant: str) -> ConvertedAdapter:
    """The adapter ``variant`` as a GGUF file, from the cache or made now."""
    config = read_capped(workshop.sources[MODEL_CONFIG].resolve(), MAX_CONFIG_SIZE)
    name = f"{workshop.recipe.name}-{variant}"
    key = _key(workshop, variant, name, config)
    with _naming(variant):
        model = parse_json_object(config, what=MODEL_CONFIG)
        adapter = read_adapter(workshop.adapters[variant], model)
        cache = workshop.cache
        path, sum_path = cache.derived(key, _SUFFIX), cache.derived(key, _SUM_SUFFIX)
        if not _is_held(path, sum_path):
            out = cache.temporary(key, _SUFFIX)
            try:
                write_adapter(adapter, out, name=name, progress=workshop.progress)
                write_file(sum_path, file_digest(out).hex.encode("ascii"))
                cache.publish(out, key, _SUFFIX)
            finally:
                out.unlink(missing_ok=True)
    return ConvertedAdapter(path, file_digest(path), adapter.type.name)


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """Say which of several adapters an error is about: their files have the same names."""
    try:
        yield
    except AirpackError as error:
        raise type(error)(f"variant {variant}: {error.message}", hint=error.hint) from error


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


def _is_held(path: Path, sum_path: Path) -> bool:
    """Whether the cache holds the file as it was made: a damaged one would be signed."""
    if not (path.exists() and sum_path.exists()):
        return False
    return read_capped(sum_path, _SUM_SIZE) == file_digest(path).hex.encode("ascii")
