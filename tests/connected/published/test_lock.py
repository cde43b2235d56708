"""GGUF models as they are published: what of a source is pinned, and what is refused of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.gguf_files import shard_name
from support.published import ONE, SPLIT, lock_of, paths_of, recipe_for
from support.tiny_source import LLAMA_CONFIG, tiny_source

from packager.connected.lock import lock_recipe
from packager.errors import AirpackError, IntegrityError, UnsafeContentError, UsageError
from packager.progress import Silent


def refusal_at_lock(folder: Path, file: str, *more: str) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        lock_of(folder, file, *more)
    assert not (folder.parent / "demo.lock.json").exists()
    return caught.value


@pytest.mark.parametrize("file", [ONE, "d*-Q4_K_M.gguf"])
def test_the_lock_pins_the_file_and_the_evidence_alone(folder: Path, file: str) -> None:
    assert paths_of(lock_of(folder, file)) == ["LICENSE", "README.md", ONE]


@pytest.mark.parametrize("file", [SPLIT, "*-of-00003.gguf", shard_name("demo-Q4_K_M", 2, 3)])
def test_the_lock_pins_every_part_of_a_split(folder: Path, file: str) -> None:
    parts = [shard_name("demo-Q4_K_M", number, 3) for number in (1, 2, 3)]
    assert paths_of(lock_of(folder, file)) == ["LICENSE", "README.md", *parts]


def test_a_pattern_that_several_models_have_is_refused_with_their_names(folder: Path) -> None:
    error = refusal_at_lock(folder, "demo-*.gguf")

    assert isinstance(error, UsageError)
    assert "names 2 GGUF models of model" in error.message
    assert repr(ONE) in error.message
    assert repr(SPLIT) in error.message


def test_a_file_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    error = refusal_at_lock(folder, "demo-Q8_0.gguf")

    assert "names no GGUF models" in error.message
    assert repr(ONE) in error.message


def test_a_file_that_the_recipe_excludes_is_not_taken(folder: Path) -> None:
    recipe = recipe_for(folder, ONE)
    recipe.write_text(recipe.read_text().replace("path: model", 'path: model, exclude: ["demo*"]'))

    with pytest.raises(UsageError, match=r"names no GGUF models of model; there are 'mmproj"):
        lock_recipe(recipe, Silent())


def test_84_a_part_that_the_source_lacks_is_named_at_the_lock(folder: Path) -> None:
    (folder / shard_name("demo-Q4_K_M", 2, 3)).unlink()

    error = refusal_at_lock(folder, SPLIT)

    assert isinstance(error, IntegrityError)
    assert "has 2 of the 3 parts" in error.message
    assert shard_name("demo-Q4_K_M", 2, 3) in error.message


def test_a_gguf_file_that_no_variant_names_does_not_travel_with_what_is_quantized(
    tmp_path: Path, folder: Path
) -> None:
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    recipe = recipe_for(folder, ONE)
    both = recipe.read_text().replace(
        "variants:", "variants:\n  - {name: f16, format: gguf, type: F16}"
    )
    recipe.write_text(both)
    assert {ONE, "model.safetensors"} <= set(paths_of(lock_recipe(recipe, Silent())))

    recipe.write_text(both.replace("path: model", 'path: model, include: ["*"]'))
    with pytest.raises(UnsafeContentError, match=r"-00001-of-00003\.gguf: .* no variant names"):
        lock_recipe(recipe, Silent())


def test_quality_is_refused_where_no_original_is_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("And it came to pass")
    quality = "quality: {text: text.txt, max_perplexity_increase: 5%}"

    error = refusal_at_lock(folder, ONE, quality)

    assert isinstance(error, UsageError)
    assert "no original beside which quality could be measured" in error.message


def test_quality_needs_an_original_that_can_be_converted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("And it came to pass")
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    quality = "quality: {text: text.txt, max_perplexity_increase: 5%}"
    assert "model.safetensors" in paths_of(lock_of(folder, ONE, quality))

    (folder.parent / "demo.lock.json").unlink()
    config = LLAMA_CONFIG | {"architectures": ["MambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert "'MambaForCausalLM' is not converted" in refusal_at_lock(folder, ONE, quality).message


def test_calibrating_what_is_quantized_already_is_refused(folder: Path) -> None:
    error = refusal_at_lock(folder, ONE, "calibrate: {imatrix: matrix.gguf}")
    assert "nothing is quantized here" in error.message


def test_an_architecture_that_is_not_converted_is_refused_with_the_ways_out(
    folder: Path,
) -> None:
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    config = LLAMA_CONFIG | {"architectures": ["MambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = recipe_for(folder, ONE)
    published = recipe.read_text()
    recipe.write_text(published.replace(f'file: "{ONE}"', "type: Q8_0"))

    with pytest.raises(UsageError, match="MambaForCausalLM") as caught:
        lock_recipe(recipe, Silent())

    assert "LlamaForCausalLM" in caught.value.message
    assert "GGUF repository" in (caught.value.hint or "")
    assert "`format: safetensors`" in (caught.value.hint or "")
    recipe.write_text(published)
    assert lock_recipe(recipe, Silent()).licence == "apache-2.0"


def test_a_recipe_to_quantize_a_gguf_repository_is_told_how_it_travels(folder: Path) -> None:
    recipe = recipe_for(folder, ONE)
    recipe.write_text(recipe.read_text().replace(f'file: "{ONE}"', "type: Q8_0"))

    with pytest.raises(UsageError, match="no safetensors weights; there are GGUF files") as caught:
        lock_recipe(recipe, Silent())

    assert "format: gguf, file: " in (caught.value.hint or "")
