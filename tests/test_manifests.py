"""The recipes that are shipped: each valid, each what it says, all of supported families."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.connected.lock import read_recipe, unsupported
from packager.format.recipe import GGUF, HubSource
from packager.quantize.architectures import ARCHITECTURES

MANIFESTS = Path(__file__).parents[1] / "manifests"
RECIPES = sorted(MANIFESTS.glob("*.yaml"))
# What config.json of each repository names; the start of its name is enough.
FAMILIES = {
    "HuggingFaceTB/SmolLM2": "LlamaForCausalLM",
    "Qwen/Qwen2.5": "Qwen2ForCausalLM",
    "Qwen/Qwen3": "Qwen3ForCausalLM",
    "TinyLlama/TinyLlama": "LlamaForCausalLM",
    "meta-llama/Llama-3": "LlamaForCausalLM",
    "mistralai/Mistral-7B": "MistralForCausalLM",
    "utter-project/EuroLLM": "LlamaForCausalLM",
}
LICENCES = {"apache-2.0", "cc0-1.0", "llama3.1", "llama3.2", "llama3.3"}

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_there_are_recipes_for_many_models_and_one_for_the_demo() -> None:
    assert len(RECIPES) >= 13
    assert MANIFESTS / "demo.yaml" in RECIPES


def test_names_and_repositories_are_unique() -> None:
    recipes = [read_recipe(path) for path in RECIPES]

    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert len({recipe.source for recipe in recipes}) == len(recipes)


@each_recipe
def test_recipe_is_valid_and_can_be_built_by_this_version(path: Path) -> None:
    recipe = read_recipe(path)

    assert recipe.name in (path.stem, f"airpack-{path.stem}")
    assert recipe.sequence >= 1
    assert unsupported(recipe) == ()
    assert any(variant.format == GGUF for variant in recipe.variants)
    assert len(recipe.smoke.prompts) >= 3


@each_recipe
def test_recipe_states_a_licence(path: Path) -> None:
    assert set(read_recipe(path).licences) <= LICENCES
    assert len(read_recipe(path).licences) == 1


@each_recipe
def test_recipe_is_of_a_supported_family(path: Path) -> None:
    source = read_recipe(path).source
    if isinstance(source, HubSource):
        families = [name for start, name in FAMILIES.items() if source.repository.startswith(start)]
        assert len(families) == 1
        assert families[0] in ARCHITECTURES
    else:
        assert (path.parent / source.path).is_dir()


def test_weights_that_a_repository_holds_twice_travel_once() -> None:
    mistral = read_recipe(MANIFESTS / "mistral-7b-instruct-v0.3.yaml")
    llama = read_recipe(MANIFESTS / "llama-3.1-8b-instruct.yaml")

    assert not mistral.wants("consolidated.safetensors")
    assert not llama.wants("original/consolidated.00.pth")
    for recipe in (mistral, llama):
        assert recipe.wants("model-00001-of-00003.safetensors")
        assert recipe.wants("tokenizer.json")
