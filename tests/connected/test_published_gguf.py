"""GGUF models as they are published: what of a source travels, and what is refused of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.gguf_files import read_header, rewrite_gguf, shard_name, split_entries, split_gguf
from support.hub_server import HubServer
from support.tiny_source import CARD, LLAMA_CONFIG, tiny_source
from support.workplace import PLATFORM, PYTHON, Workplace

from packager.connected.build import build
from packager.connected.init import init_recipe
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.provisions import Provisions
from packager.errors import (
    AirpackError,
    IntegrityError,
    MalformedError,
    TruncatedError,
    UnsafeContentError,
    UsageError,
)
from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle
from packager.format.lock import Lock
from packager.progress import Silent
from packager.quantize.gguf_writer import Entry, text, uint32
from packager.store.digests import file_digest

RECIPE = f"""\
name: demo
source: {{path: model}}
licence: {{allow: [apache-2.0]}}
variants:
  - {{name: q4_k_m, format: gguf, file: FILE}}
smoke: {{prompts: ["In the beginning"], max_tokens: 4}}
targets:
  - {{platform: {PLATFORM}, python: ["{PYTHON}"], glibc: "2.28"}}
"""
DEMO = Path(__file__).parents[2] / "packager" / "demo"
Make = Callable[..., Bundle]
ONE, SPLIT = "demo-Q4_K_M.gguf", "demo-Q4_K_M-00001-of-00003.gguf"


@pytest.fixture
def folder(tmp_path: Path, demo_model: Path) -> Path:
    """A publisher's repository: a model in one file, the same in three, and what lies beside."""
    place = tmp_path / "model"
    place.mkdir()
    shutil.copy(demo_model, place / ONE)
    split_gguf(demo_model, place, "demo-Q4_K_M", 3)
    (place / "README.md").write_bytes(CARD)
    (place / "LICENSE").write_bytes(b"Do as you like.\n")
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (place / "mmproj-F16.gguf").write_bytes(b"not looked into")
    return place


def recipe_for(folder: Path, file: str, *more: str, licence: str = "apache-2.0") -> Path:
    recipe = folder.parent / "demo.yaml"
    text = RECIPE.replace("FILE", json.dumps(file)).replace("apache-2.0", licence)
    recipe.write_text(text + "".join(f"{line}\n" for line in more))
    return recipe


def lock_of(folder: Path, file: str, *more: str) -> Lock:
    return lock_recipe(recipe_for(folder, file, *more), Silent())


def paths_of(lock: Lock) -> list[str]:
    return [file.path for file in lock.files]


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


def test_quality_is_measured_beside_the_original_where_that_is_there(
    folder: Path, make: Make
) -> None:
    shutil.copytree(DEMO / "tiny-kjv", folder, dirs_exist_ok=True)
    shutil.copy(DEMO / "held-out.txt", folder.parent)
    gate = "quality: {text: held-out.txt, max_perplexity_increase: 50%}"

    index = make(folder, SPLIT, gate, licence="cc0-1.0")

    (variant,) = index.variants
    assert variant.quality is not None
    assert 0 < variant.quality.divergence < 1e9
    assert not any(file.path.endswith(".safetensors") for file in index.files)


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


# At the build


@pytest.fixture
def make(workplace: Workplace, provisions: Provisions) -> Make:
    """Lock, build, and read the index."""

    def lock_and_build(folder: Path, file: str, *more: str, licence: str = "apache-2.0") -> Bundle:
        recipe = recipe_for(folder, file, *more, licence=licence)
        place = replace(workplace, recipe=recipe)
        output = build(place.request(folder.parent / "out"), workplace.cache, Silent())
        return parse_bundle((output / INDEX_NAME).read_bytes())

    return lock_and_build


def test_one_file_is_bundled_as_it_is(folder: Path, make: Make) -> None:
    index = make(folder, ONE)

    (variant,) = index.variants
    assert (variant.format, variant.type, variant.model) == ("gguf", "Q4_K_M", ONE)
    assert variant.golden is not None
    assert variant.quality is None
    assert {file.path: file.digest for file in index.carried_files(variant)} == {
        f"models/demo/q4_k_m/{name}": file_digest(folder / name)
        for name in (ONE, "LICENSE", "README.md")
    }


def test_a_split_stays_split_and_answers_as_the_whole_does(
    folder: Path, workplace: Workplace, make: Make
) -> None:
    whole = make(folder, ONE).variants[0]
    shutil.rmtree(folder.parent / "out")

    index = make(folder, SPLIT)

    (split,) = index.variants
    assert split.model == SPLIT
    assert split.golden == whole.golden
    names = [Path(file.path).name for file in index.carried_files(split)]
    assert sorted(names) == sorted(
        ["LICENSE", "README.md", *(shard_name("demo-Q4_K_M", n, 3) for n in (1, 2, 3))]
    )
    assert not list((workplace.cache.root / "derived").glob(".published-*"))


def test_a_file_type_unknown_here_is_called_as_published(
    folder: Path, demo_model: Path, make: Make
) -> None:
    rewrite_gguf(demo_model, folder / ONE, [uint32("general.file_type", 999)])

    assert make(folder, ONE).variants[0].type == "as published"


def test_a_chat_template_that_reaches_into_python_is_refused(
    folder: Path, demo_model: Path, make: Make
) -> None:
    template = text("tokenizer.chat_template.tool_use", "{{ x.__class__.__mro__ }}")
    rewrite_gguf(demo_model, folder / ONE, [template])

    refused(folder, make, ONE, UnsafeContentError, f"{ONE}: its chat template holds '__class__")


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_a_gguf_file_that_is_no_model_is_refused(
    folder: Path, demo_model: Path, make: Make, kind: str
) -> None:
    rewrite_gguf(demo_model, folder / ONE, [text("general.type", kind)])

    refused(folder, make, ONE, UnsafeContentError, f"of the kind '{kind}', not a model")


def test_75_a_part_without_the_magic_is_refused(folder: Path, make: Make) -> None:
    overwrite(folder / shard_name("demo-Q4_K_M", 3, 3), 0, b"GGML")
    refused(folder, make, SPLIT, MalformedError, "-00003-of-00003.gguf: not a GGUF file")


def test_75_a_pickle_called_gguf_is_refused(folder: Path, make: Make) -> None:
    overwrite(folder / ONE, 0, b"\x80\x04")
    refused(folder, make, ONE, UnsafeContentError, f"{ONE}: is a pickle")


@pytest.mark.parametrize("number", [1, 3])
def test_82_a_part_that_was_cut_is_refused(folder: Path, make: Make, number: int) -> None:
    part = folder / shard_name("demo-Q4_K_M", number, 3)
    os.truncate(part, part.stat().st_size - 64)
    refused(folder, make, SPLIT, TruncatedError, f"{part.name}: the tensor .* ends at byte")


def test_82_a_tensor_beyond_the_file_is_refused(folder: Path, make: Make) -> None:
    model = folder / ONE
    header = read_header(model)
    last = header.tensors[-1]
    data = model.read_bytes()
    offset = (last.offset - header.data_begin).to_bytes(8, "little")
    at = data.rindex(offset, 0, header.data_begin)
    overwrite(model, at, (1 << 40).to_bytes(8, "little"))
    refused(folder, make, ONE, MalformedError, f"{ONE}: the tensor .* begins at 1099511627776")


def restated(folder: Path, number: int, entries: Sequence[Entry]) -> None:
    part = folder / shard_name("demo-Q4_K_M", number, 3)
    rewrite_gguf(part, part.with_name("rewritten"), entries)
    part.with_name("rewritten").replace(part)


def test_84_a_part_of_another_split_is_refused(folder: Path, make: Make) -> None:
    restated(folder, 2, split_entries(1, 4, 29)[1:2])
    refused(folder, make, SPLIT, IntegrityError, "-00002-of-00003.gguf: .*one of 4 parts")


def test_84_parts_with_each_others_names_are_refused(folder: Path, make: Make) -> None:
    second, third = (folder / shard_name("demo-Q4_K_M", number, 3) for number in (2, 3))
    second.rename(folder / "aside")
    third.rename(second)
    (folder / "aside").rename(third)
    refused(folder, make, SPLIT, IntegrityError, "says that it is part 3 .* called part 2")


def test_84_a_part_published_as_a_whole_is_refused(folder: Path, make: Make) -> None:
    shutil.copy(folder / SPLIT, folder / ONE)
    refused(folder, make, ONE, IntegrityError, f"{ONE}: .*one of 3 parts .* one of 1")


def refused(
    folder: Path,
    make: Make,
    file: str,
    error: type[AirpackError],
    match: str,
) -> None:
    """Nothing is built; and no engine was asked, since what refuses it is said by airpack."""
    with pytest.raises(error, match=match):
        make(folder, file)
    assert not list((folder.parent / "out").glob("demo-*"))


def overwrite(file: Path, at: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)


# The recipe that is written for a beginner


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = {"demo-Q8_0.gguf": b"GGUF", "demo-Q2_K-00001-of-00002.gguf": b"GGUF"}
    imatrix = {"demo.imatrix.gguf": b"GGUF"}
    del files[ONE]
    with HubServer({"org/demo-GGUF": {**files, **others, **imatrix}}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_the_recipe_for_a_gguf_repository_names_what_a_beginner_wants(
    hub: HubServer, tmp_path: Path
) -> None:
    recipe = tmp_path / "demo.yaml"
    recipe.write_text(init_recipe("org/demo-GGUF", Silent()))

    variants = [(v.name, v.format, v.file) for v in read_recipe(recipe).variants]
    assert variants == [("q4_k_m", "gguf", SPLIT), ("q8_0", "gguf", "demo-Q8_0.gguf")]
    assert {SPLIT, "demo-Q8_0.gguf"} <= set(paths_of(lock_recipe(recipe, Silent())))
    assert hub.files_fetched == {"LICENSE", "README.md", "config.json"}


def test_the_recipe_for_other_types_names_the_first_and_comments_the_rest(folder: Path) -> None:
    for path in folder.glob("*Q4_K_M*"):
        path.unlink()
    for name in ("m.IQ4_XS.gguf", "m.UD-Q6_K_XL.gguf", "strange.gguf"):
        (folder / name).write_bytes(b"GGUF")

    text = init_recipe(str(folder), Silent(), recipe_folder=folder.parent)

    (folder.parent / "demo.yaml").write_text(text)
    (variant,) = read_recipe(folder.parent / "demo.yaml").variants
    assert (variant.name, variant.file) == ("iq4_xs", "m.IQ4_XS.gguf")
    assert "\n  # - {name: q6_k_xl, format: gguf, file: m.UD-Q6_K_XL.gguf}\n" in text
    assert "\n  # - {name: strange, format: gguf, file: strange.gguf}\n" in text
    assert "mmproj" not in text
