"""Adapters in the recipe, in the lock and in the index."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from format.test_bundle_index import index_of
from format.test_lock_document import LOCK, ids, locks
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError, ParseError
from packager.format import canonical
from packager.format.adapter import AdapterBase
from packager.format.bundle import Bundle, encode_bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.lock import (
    SHA256,
    ContentId,
    Folder,
    HubCommit,
    Lock,
    LockedAdapter,
    LockedFile,
    encode_lock,
    parse_lock,
)
from packager.format.recipe import Adapter, FolderSource, HubSource, Recipe, parse_recipe
from packager.format.variant import Variant

RECIPE = """\
name: legal
source: {hub: org/model}
variants:
  - {name: q4_k_m, format: gguf, type: Q4_K_M}
  - {name: original, format: safetensors}
  - ADAPTER
"""


def recipe_with(adapter: str) -> Recipe:
    return parse_recipe(RECIPE.replace("ADAPTER", adapter))


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("{path: ./adapter}", FolderSource("./adapter")),
        ("{hub: org/legal-lora}", HubSource("org/legal-lora", "main")),
        ("{hub: org/legal-lora, revision: v2}", HubSource("org/legal-lora", "v2")),
    ],
)
def test_an_adapter_names_its_source_and_the_variant_it_changes(
    source: str, meant: HubSource | FolderSource
) -> None:
    recipe = recipe_with(f"{{name: legal, format: lora, base: q4_k_m, source: {source}}}")
    assert recipe.variants[2].adapter == Adapter(meant, "q4_k_m")
    assert [variant.adapter for variant in recipe.variants[:2]] == [None, None]


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ("{name: l, format: lora, source: {path: a}}", "variants[2].base"),
        ("{name: l, format: lora, base: q4_k_m}", "variants[2].source"),
        ("{name: l, format: lora, base: q8_0, source: {path: a}}", "variants[2].base"),
        ("{name: l, format: lora, base: original, source: {path: a}}", "variants[2].base"),
        ("{name: l, format: lora, base: l, source: {path: a}}", "variants[2].base"),
        ("{name: l, format: lora, base: q4_k_m, source: {}}", "variants[2].source.hub"),
        (
            "{name: l, format: lora, base: q4_k_m, source: {path: a, include: [b]}}",
            "variants[2].source.include",
        ),
        (
            "{name: l, format: lora, type: F16, base: q4_k_m, source: {path: a}}",
            "variants[2].type",
        ),
        ("{name: l, format: gguf, type: Q8_0, base: q4_k_m}", "variants[2].base"),
        ("{name: l, format: safetensors, source: {path: a}}", "variants[2].source"),
    ],
)
def test_a_mistake_in_an_adapter_is_refused_where_it_is(entry: str, where: str) -> None:
    with pytest.raises(ParseError) as refused:
        recipe_with(entry)
    assert refused.value.message.startswith(f"recipe: {where}: ")


names = st.text("abc", min_size=1, max_size=3)
adapters = st.dictionaries(
    names,
    st.tuples(
        st.just(HubCommit("org/lora", "0123456789" * 4)) | st.just(Folder("adapter")),
        st.none() | st.just("mit"),
        st.builds(LockedFile, st.just("adapter_model.safetensors"), st.integers(0, 9), ids),
    ),
    max_size=3,
).map(
    lambda found: tuple(
        LockedAdapter(name, source, licence, (file,))
        for name, (source, licence, file) in sorted(found.items())
    )
)


@given(locks, adapters)
def test_a_lock_with_adapters_is_read_back(lock: Lock, found: tuple[LockedAdapter, ...]) -> None:
    lock = replace(lock, adapters=found)
    assert parse_lock(encode_lock(lock)) == lock
    for adapter in found:
        assert lock.adapter(adapter.variant) == adapter


def test_a_lock_from_before_there_were_adapters_has_none() -> None:
    document = json.loads(encode_lock(LOCK))
    del document["adapters"]
    assert parse_lock(canonical.encode(document)) == LOCK


FILE = LockedFile("adapter_config.json", 2, ContentId(SHA256, "ab" * 32))
ADAPTED = replace(LOCK, adapters=(LockedAdapter("legal", Folder("a"), None, (FILE,)),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, "lock: adapters[0].extra: unknown field"),
        ({"variant": ""}, "lock: adapters[0].variant"),
        ({"source": {"kind": "ftp"}}, "lock: adapters[0].source.kind"),
        ({"files": [{"path": "../a", "size": 1, "content": "sha256:" + "0" * 64}]}, "'..'"),
        ({"files": 3}, "lock: adapters[0].files"),
    ],
)
def test_a_broken_adapter_in_a_lock_is_refused(change: dict[str, object], words: str) -> None:
    document = json.loads(encode_lock(ADAPTED))
    document["adapters"][0] |= change
    with pytest.raises(MalformedError) as refused:
        parse_lock(canonical.encode(document))
    assert words in refused.value.message


@pytest.mark.parametrize("variants", [("b", "a"), ("a", "a")])
def test_adapters_out_of_order_or_twice_are_refused(variants: tuple[str, ...]) -> None:
    [adapter] = ADAPTED.adapters
    lock = replace(LOCK, adapters=tuple(replace(adapter, variant=name) for name in variants))
    with pytest.raises(MalformedError, match="not in order of variant, each once"):
        encode_lock(lock)


def with_adapter(base: AdapterBase | None, *, model: str | None = "adapter.gguf") -> Bundle:
    """An index of a model and an adapter to ``base``; every file has the digest of nothing."""
    index = index_of(
        [("models/tiny/original/model.gguf", 200_000), ("models/tiny/lora/adapter.gguf", 3)]
    )
    adapter = Variant("lora", "lora", "F32", "models/tiny/lora", model, None, base=base)
    return replace(index, variants=(*index.variants, adapter))


EMPTY = Digest.of(b"")


def test_an_adapter_is_bound_to_the_file_of_its_base() -> None:
    index = parse_bundle(encode_bundle(with_adapter(AdapterBase("original", EMPTY))))
    model, adapter = index.variants
    assert index.base_of(adapter) == model
    assert index.base_of(model) is None
    assert index.model_file(model).path == "models/tiny/original/model.gguf"


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (with_adapter(AdapterBase("original", Digest.of(b"x"))), "is for another file than"),
        (with_adapter(AdapterBase("q8_0", EMPTY)), "'q8_0' is no model here"),
        (with_adapter(AdapterBase("lora", EMPTY)), "'lora' is no model here"),
        (with_adapter(AdapterBase("original", EMPTY), model=None), "is no model here"),
    ],
)
def test_an_adapter_to_another_file_or_to_none_is_refused(index: Bundle, said: str) -> None:
    with pytest.raises(MalformedError) as refused:
        encode_bundle(index)
    assert refused.value.message.startswith("bundle.json: adapter lora: ")
    assert said in refused.value.message
