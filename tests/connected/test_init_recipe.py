"""The recipe that airpack writes for a beginner: valid, and lockable as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.tiny_source import LLAMA_CONFIG, tiny_source

from packager.connected.init import init_recipe
from packager.connected.lock import lock_recipe
from packager.errors import UsageError
from packager.format.recipe import FolderSource, HubSource, parse_recipe
from packager.progress import Silent


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer({"org/Tiny-1.0_Instruct": tiny_source()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def write_folder(folder: Path) -> Path:
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_recipe_for_a_repository_can_be_locked(hub: HubServer, tmp_path: Path) -> None:
    text = init_recipe("org/Tiny-1.0_Instruct", Silent())

    recipe = parse_recipe(text)
    assert recipe.name == "tiny-1.0_instruct"
    assert recipe.source == HubSource("org/Tiny-1.0_Instruct", "main")
    assert recipe.licences == ("apache-2.0",)
    assert [variant.type for variant in recipe.variants] == ["Q4_K_M", "Q8_0"]
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    assert lock_recipe(path, Silent()).licence == "apache-2.0"
    assert hub.files_fetched == {"LICENSE", "README.md", "config.json"}


def test_recipe_for_a_folder_names_it_relative_to_the_recipe(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models" / "My Model")
    recipes = tmp_path / "recipes"
    recipes.mkdir()

    text = init_recipe(str(folder), Silent(), recipe_folder=recipes)

    recipe = parse_recipe(text)
    assert recipe.name == "my-model"
    assert recipe.source == FolderSource("../models/My Model")
    path = recipes / "mine.yaml"
    path.write_text(text)
    assert lock_recipe(path, Silent()).files


def test_model_that_states_no_licence_says_so_in_the_recipe(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "README.md").unlink()

    text = init_recipe(str(folder), Silent(), recipe_folder=tmp_path)

    assert "states no licence" in text
    assert parse_recipe(text).licences == ()


@pytest.mark.parametrize("name", ["'; rm -rf", "a: b", "no", "1.0", "#x", "Ünï"])
def test_folder_of_any_name_gives_a_valid_recipe(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / name)

    recipe = parse_recipe(init_recipe(str(folder), Silent(), recipe_folder=tmp_path))

    assert recipe.source == FolderSource(name)


def test_model_that_cannot_be_quantized_is_carried_as_it_is_and_the_recipe_says_why(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "model")
    config = dict(LLAMA_CONFIG) | {"architectures": ["MambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = tmp_path / "recipe.yaml"

    recipe.write_text(init_recipe(str(folder), Silent(), recipe_folder=tmp_path))

    assert "# It cannot be quantized here: " in recipe.read_text()
    assert "MambaForCausalLM" in recipe.read_text()
    [variant] = parse_recipe(recipe.read_bytes()).variants
    assert variant.format == "safetensors"
    lock_recipe(recipe, Silent())


def test_adapter_is_no_model_and_belongs_into_the_recipe_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"has no config\.json") as caught:
        init_recipe(str(tmp_path), Silent())
    assert "format: lora" in str(caught.value.hint)


def test_source_that_is_neither_folder_nor_repository() -> None:
    with pytest.raises(UsageError, match="neither a folder nor"):
        init_recipe("https://example.org/model", Silent())
