"""What a build will make, known before it is made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.workplace import Workplace

from packager.connected.cache import Cache
from packager.connected.expected import (
    LARGEST_WEIGHT,
    expect,
    expect_setup,
    models_at_hand,
    sources_at_hand,
)
from packager.connected.lock import lock_recipe, read_recipe
from packager.errors import TruncatedError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.held import is_setup_part
from packager.format.inventory import inventory_of
from packager.format.lock import HubCommit, Lock
from packager.format.recipe import Recipe
from packager.progress import Silent


@pytest.fixture
def recipe(workplace: Workplace) -> Recipe:
    return read_recipe(workplace.recipe)


@pytest.fixture
def lock(workplace: Workplace) -> Lock:
    return lock_recipe(workplace.recipe, Silent())


@pytest.fixture
def bundle(built: Path) -> Bundle:
    return parse_bundle((built / "bundle.json").read_bytes())


def carried(bundle: Bundle) -> dict[str, int]:
    return {f.path: f.size for f in bundle.files if not f.path.startswith("setup/")}


def test_with_the_source_here_all_sizes_are_those_that_the_bundle_has(
    workplace: Workplace, recipe: Recipe, lock: Lock, bundle: Bundle
) -> None:
    sources = sources_at_hand(lock, workplace.cache, workplace.recipe.parent)
    expected = expect(recipe, lock, sources)

    assert expected.is_exact
    assert {file.path: file.size for file in expected.carried} == carried(bundle)
    setup = {f.path: f.size for f in bundle.files if f.path.startswith("setup/")}
    assert expected.payload_size(setup) == bundle.payload.size


def test_without_it_the_lock_alone_gives_a_size_that_the_bundle_does_not_fall_short_of(
    recipe: Recipe, lock: Lock, bundle: Bundle
) -> None:
    least = expect(recipe, lock, {}, weight_size=LARGEST_WEIGHT)

    assert not least.is_exact
    sizes = carried(bundle)
    assert {file.path for file in least.carried} == sizes.keys()
    assert all(file.size <= sizes[file.path] for file in least.carried)
    assert 0.5 * sum(sizes.values()) < least.size


def test_what_the_base_is_seen_to_hold_is_not_counted(
    workplace: Workplace, recipe: Recipe, lock: Lock, bundle: Bundle
) -> None:
    base = inventory_of(bundle, Digest.of(b""), bundle.variants)
    sources = sources_at_hand(lock, workplace.cache, workplace.recipe.parent)
    expected = expect(recipe, lock, sources, base)

    assert [file.path.rpartition("/")[2] for file in expected.carried] == ["demo-q4_k_m.gguf"]
    assert expected.size + expected.held_size == sum(carried(bundle).values())


def test_a_model_made_before_is_seen_to_be_held_even_without_its_source(
    workplace: Workplace, recipe: Recipe, lock: Lock, bundle: Bundle, tmp_path: Path
) -> None:
    base = inventory_of(bundle, Digest.of(b""), bundle.variants)
    models = models_at_hand(recipe, lock, workplace.cache)
    expected = expect(recipe, lock, {}, base, models=models)

    assert (expected.carried, expected.is_exact, expected.is_made) == ((), True, True)
    assert {file.path: file.size for file in expected.held} == carried(bundle)
    assert not expect(recipe, lock, {}, base).is_made
    assert models_at_hand(recipe, lock, Cache(tmp_path)) == {}


def test_a_model_whose_digest_is_not_in_the_cache_was_not_made(
    workplace: Workplace, recipe: Recipe, lock: Lock, bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(workplace.cache.root / "derived", tmp_path / "derived")
    for path in (tmp_path / "derived").glob("*.sha256"):
        path.write_text("0" * 65)
    assert models_at_hand(recipe, lock, Cache(tmp_path)) == {}


def test_wheels_that_are_not_in_the_cache_are_taken_to_travel(
    workplace: Workplace, recipe: Recipe, bundle: Bundle, tmp_path: Path
) -> None:
    base = inventory_of(bundle, Digest.of(b""), bundle.variants)
    here = expect_setup(recipe, workplace.cache, base, Silent())
    none = expect_setup(recipe, Cache(tmp_path), base, Silent())
    anew = expect_setup(recipe, workplace.cache, None, Silent())

    assert (here.set_up_with, here.is_exact) == (bundle.setup, True)
    assert (none.set_up_with, none.is_exact) == (None, False)
    assert sum(none.sizes.values()) > 50 << 20
    setup = {f.path: f.size for f in bundle.files if f.path.startswith("setup/")}
    assert (anew.sizes, anew.set_up_with) == (setup, None)
    assert here.sizes.keys() == {path for path in setup if not is_setup_part(path)}


def test_a_source_from_the_hub_is_at_hand_once_the_cache_has_all_of_it(
    lock: Lock, tmp_path: Path
) -> None:
    lock = replace(lock, source=HubCommit("some/model", "a" * 40))
    cache = Cache(tmp_path)
    for file in lock.files:
        assert sources_at_hand(lock, cache, tmp_path) == {}
        blob = cache.blob(file.content)
        blob.parent.mkdir(exist_ok=True)
        blob.touch()

    assert sources_at_hand(lock, cache, tmp_path) == {
        file.path: cache.blob(file.content) for file in lock.files
    }


def test_a_source_that_cannot_be_quantized_is_found_out_before_it_is(
    workplace: Workplace, recipe: Recipe, lock: Lock, tmp_path: Path
) -> None:
    sources = dict(sources_at_hand(lock, workplace.cache, workplace.recipe.parent))
    sources["model.safetensors"] = tmp_path / "cut"
    sources["model.safetensors"].write_bytes(b"\x08")

    with pytest.raises(TruncatedError, match=r"model\.safetensors"):
        expect(recipe, lock, sources)
