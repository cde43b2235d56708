"""Variants for vLLM and transformers: what they hold, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES, files_of, write_llama
from support.compressed import read_safetensors
from support.watching import Watching
from support.workplace import NOW, RECIPE, Workplace

from packager.connected.build import BuildRequest, build
from packager.connected.cache import Cache
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.provisions.carried import Provisions
from packager.connected.variants.making import MadeVariant, make_variants
from packager.connected.workshop import Workshop
from packager.errors import AirpackError, IntegrityError, NoSpaceError, UsageError
from packager.format.bundle import parse_bundle
from packager.format.digest import Digest
from packager.progress import Silent
from packager.quantize.compressed.schemes import SCHEMES
from packager.store.digests import file_digest

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"
SHARDS = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]


def recipe_of(folder: Path, source: Path, *schemes: str, more: str = "") -> Path:
    """A recipe with a variant for each of ``schemes``, called as the scheme is."""
    path = folder / "recipe.yaml"
    variants = "".join(
        f"  - {{name: {scheme.lower()}, format: compressed-tensors, scheme: {scheme}}}\n"
        for scheme in schemes
    )
    path.write_text(f"name: m\nsource: {{path: {source}}}\nvariants:\n{variants}{more}")
    return path


def workshop_of(recipe: Path, source: Path, cache: Path) -> Workshop:
    return Workshop(
        recipe=read_recipe(recipe),
        recipe_folder=recipe.parent,
        lock=lock_recipe(recipe, Silent()),
        sources={file.path: source / file.path for file in lock_recipe(recipe, Silent()).files},
        text=None,
        engine="an engine",
        libraries=recipe.parent,
        cache=Cache(cache),
        progress=Watching(),
    )


def make(workshop: Workshop) -> tuple[tuple[MadeVariant, ...], Watching]:
    """The variants, and what was told; of tasks, those that make something."""
    watching = Watching()
    made = make_variants(replace(workshop, progress=watching))
    watching.tasks = [t for t in watching.tasks if not t.label.startswith("checking ")]
    return made, watching


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in four shards, with papers."""
    source = tmp_path / "source"
    shutil.copytree(REFERENCES / "qwen3", source, ignore=shutil.ignore_patterns("reference.*"))
    (source / "LICENSE").write_text("do as you like\n")
    (source / "generation_config.json").write_text('{"top_k": 1}')
    return source


def contents(variant: MadeVariant) -> dict[str, bytes]:
    directory = f"{variant.variant.directory}/"
    return {
        member.path.removeprefix(directory): member.source.read_bytes()
        for member in variant.members
    }


def test_a_variant_has_all_that_the_source_has_with_other_weights(
    sharded: Path, tmp_path: Path
) -> None:
    shutil.copy(sharded / SHARDS[0], sharded / "model-consolidated.safetensors")
    (sharded / "2_Dense").mkdir()
    shutil.copy(sharded / SHARDS[0], sharded / "2_Dense" / "model.safetensors")
    recipe = recipe_of(tmp_path, sharded, "FP8_DYNAMIC")
    recipe.write_text(recipe.read_text().replace("}", ', include: ["**"]}', 1))
    files = {name: path.read_bytes() for name, path in files_of(sharded).items()}

    (made,), _ = make(workshop_of(recipe, sharded, tmp_path / "cache"))

    assert made.variant.format == "compressed-tensors"
    assert made.variant.type == "FP8_DYNAMIC"
    assert (made.variant.model, made.variant.golden) == (None, None)
    found = contents(made)
    replaced = {"config.json", "model.safetensors.index.json", *SHARDS}
    assert found.keys() == files.keys() - {"model-consolidated.safetensors"}
    assert all(found[name] == files[name] for name in found.keys() - replaced)
    assert all(len(found[name]) <= len(files[name]) for name in SHARDS)
    assert sum(len(found[name]) < len(files[name]) for name in SHARDS) >= 3
    quantization = json.loads(found["config.json"])["quantization_config"]
    assert quantization["format"] == "float-quantized"
    for member in made.members:
        assert member.digest == file_digest(member.source)
        assert member.size == member.source.stat().st_size


def test_all_schemes_are_made_in_one_pass_over_the_source_and_kept(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, DEMO, *SCHEMES)
    workshop = workshop_of(recipe, DEMO, tmp_path / "cache")

    made, watching = make(workshop)
    again, once_more = make(workshop)

    (task,) = watching.tasks
    assert task.label == "quantize FP8_DYNAMIC, W8A8, W8A16, W4A16"
    assert task.done == task.total < (DEMO / "model.safetensors").stat().st_size
    assert [variant.variant.type for variant in made] == list(SCHEMES)
    assert again == made
    assert once_more.tasks == []
    assert once_more.notes == [
        f"{scheme.lower()}: quantized before, taken from the cache" for scheme in SCHEMES
    ]
    assert list((tmp_path / "cache").rglob(".tmp-*")) == []


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make(workshop_of(recipe_of(tmp_path, DEMO, "W4A16"), DEMO, cache))

    made, watching = make(workshop_of(recipe_of(tmp_path, DEMO, "W8A8", "W4A16"), DEMO, cache))

    assert [task.label for task in watching.tasks] == ["quantize W8A8"]
    assert watching.notes == ["w4a16: quantized before, taken from the cache"]
    assert [variant.variant.name for variant in made] == ["w8a8", "w4a16"]


def test_papers_that_change_make_no_new_weights(sharded: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    recipe = recipe_of(tmp_path, sharded, "W8A8")
    make(workshop_of(recipe, sharded, cache))
    (sharded / "LICENSE").write_text("do as I like\n")
    config = json.loads((sharded / "config.json").read_text())
    (sharded / "config.json").write_text(json.dumps({**config, "bos_token_id": 3}))

    (made,), watching = make(workshop_of(recipe, sharded, cache))

    assert watching.tasks == []
    assert json.loads(contents(made)["config.json"])["bos_token_id"] == 3


def test_one_changed_shard_makes_all_anew(sharded: Path, tmp_path: Path) -> None:
    """What becomes of a tensor may depend on others."""
    cache = tmp_path / "cache"
    recipe = recipe_of(tmp_path, sharded, "W8A8")
    make(workshop_of(recipe, sharded, cache))
    data = bytearray((sharded / SHARDS[3]).read_bytes())
    data[-2] ^= 1
    (sharded / SHARDS[3]).write_bytes(data)

    _, watching = make(workshop_of(recipe, sharded, cache))

    (task,) = watching.tasks
    assert task.total > sum((sharded / shard).stat().st_size for shard in SHARDS[:3]) // 2


def test_a_made_shard_that_is_damaged_in_the_cache_is_made_again(
    sharded: Path, tmp_path: Path
) -> None:
    workshop = workshop_of(recipe_of(tmp_path, sharded, "FP8_DYNAMIC"), sharded, tmp_path / "cache")
    (before,), _ = make(workshop)
    shard = next(m for m in before.members if m.path.endswith(SHARDS[1]))
    data = bytearray(shard.source.read_bytes())
    data[-1] ^= 1
    shard.source.write_bytes(data)

    (after,), watching = make(workshop)

    (task,) = watching.tasks
    assert task.total < (sharded / SHARDS[1]).stat().st_size
    assert after == before
    assert file_digest(shard.source) == shard.digest


KILLED = """
import os, signal, sys
from pathlib import Path
from packager.connected.variants import compressed
sys.path.insert(0, sys.argv[4])
from test_compressed_variants import make, workshop_of
keep = compressed._keep
done = []
def keep_and_die(*arguments):
    done.append(keep(*arguments))
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done[-1]
compressed._keep = keep_and_die
recipe, source, cache = map(Path, sys.argv[1:4])
make(workshop_of(recipe, source, cache))
"""


def test_what_was_made_before_a_kill_is_not_made_again(sharded: Path, tmp_path: Path) -> None:
    recipe, cache = recipe_of(tmp_path, sharded, "FP8_DYNAMIC"), tmp_path / "cache"
    here = Path(__file__).parent
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(recipe), str(sharded), str(cache), str(here)],
        env={"PYTHONPATH": str(here.parent)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL

    (made,), watching = make(workshop_of(recipe, sharded, cache))

    (task,) = watching.tasks
    weights = sum(
        values.nbytes // 2
        for shard in SHARDS[2:]
        for _, values in read_safetensors(sharded / shard).values()
    )
    assert task.done == task.total == weights
    assert list(cache.rglob(".tmp-*")) == []
    (alone,), _ = make(workshop_of(recipe, sharded, tmp_path / "another"))
    assert contents(made) == contents(alone)


def test_a_pass_that_fails_leaves_nothing_in_the_cache(sharded: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, sharded, "FP8_DYNAMIC", "W8A8")
    workshop = workshop_of(recipe, sharded, tmp_path / "cache")
    data = bytearray((sharded / SHARDS[0]).read_bytes())
    data[-2:] = b"\x80\x7f"
    (sharded / SHARDS[0]).write_bytes(data)

    with pytest.raises(IntegrityError, match="holds infinity"):
        make(workshop)

    assert [path for path in (tmp_path / "cache" / "derived").iterdir() if path.is_file()] == []


def test_what_the_disk_has_no_room_for_is_refused_before_any_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_of(recipe_of(tmp_path, DEMO, "W8A8"), DEMO, tmp_path / "cache")

    class Full:
        free = 409_600

    monkeypatch.setattr("packager.connected.artefacts.shutil.disk_usage", lambda _path: Full)
    with pytest.raises(NoSpaceError, match=r"cache: .* to quantize, and .* free"):
        make(workshop)

    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_what_is_left_alone_is_told(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", intermediate_size=320)
    recipe = recipe_of(tmp_path, model, "W4A16")

    _, watching = make(workshop_of(recipe, model, tmp_path / "cache"))

    (note,) = watching.notes
    assert note == (
        "w4a16: left as they are, since groups of 128 do not divide their rows: "
        "model.layers.0.mlp.down_proj.weight and 2 more"
    )


def test_experts_that_are_left_alone_or_that_transformers_does_not_load_are_told(
    tmp_path: Path,
) -> None:
    for family, note in (
        ("gpt-oss-bf16", "w8a8: left as they are, since one tensor holds all experts: "),
        ("mixtral", "w8a8: transformers does not load experts in W8A8, vLLM does"),
    ):
        model = REFERENCES / family
        recipe = recipe_of(tmp_path, model, "W8A8", "FP8_DYNAMIC")

        _, watching = make(workshop_of(recipe, model, tmp_path / "cache"))

        assert sum(told.startswith(note) for told in watching.notes) == 1


def refusal(recipe: Path) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        lock_recipe(recipe, Silent())
    return caught.value


@pytest.mark.parametrize("scheme", ["W5A16", "FP8", "NVFP4"])
def test_a_scheme_that_is_not_known_is_refused_at_the_lock_with_those_that_are(
    tmp_path: Path, scheme: str
) -> None:
    error = refusal(recipe_of(tmp_path, DEMO, scheme))

    assert isinstance(error, UsageError)
    assert error.message.startswith(f"variant {scheme.lower()}: '{scheme}' is not a scheme")
    assert error.hint == "choose of FP8_DYNAMIC, W8A8, W8A16, W4A16"


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "mxfp4"])
def test_weights_quantized_already_are_refused_at_the_lock(tmp_path: Path, method: str) -> None:
    model = write_llama(tmp_path / "model", quantization_config={"quant_method": method})

    error = refusal(recipe_of(tmp_path, model, "W4A16"))

    assert isinstance(error, UsageError)
    assert f"quantized already (quantization_config: '{method}')" in error.message
    assert "format: safetensors" in (error.hint or "")


def test_weights_quantized_already_are_carried_as_they_are_and_that_is_told(
    tmp_path: Path,
) -> None:
    model = write_llama(tmp_path / "model", quantization_config={"quant_method": "gptq"})
    recipe = recipe_of(tmp_path, model, more="  - {name: original, format: safetensors}\n")
    watching = Watching()

    lock_recipe(recipe, watching)

    note = "original: the weights are quantized already, by gptq; they are carried so"
    assert watching.notes[0] == note
    (made,), _ = make(workshop_of(recipe, model, tmp_path / "cache"))
    assert contents(made) == {name: path.read_bytes() for name, path in files_of(model).items()}


def test_of_weights_quantized_already_only_fp8_is_locked_for_gguf(tmp_path: Path) -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    model = write_llama(tmp_path / "model", quantization_config=fp8)
    recipe = recipe_of(tmp_path, model, more="  - {name: q8_0, format: gguf, type: Q8_0}\n")
    assert lock_recipe(recipe, Silent()).files

    for method in ("gptq", "awq"):
        write_llama(model, quantization_config={"quant_method": method})
        error = refusal(recipe)

        assert isinstance(error, UsageError)
        assert f"quantized already (quantization_config: '{method}')" in error.message
        assert "16-bit weights" in (error.hint or "")
        assert "format: safetensors" in (error.hint or "")


def test_a_model_without_a_configuration_is_refused_at_the_lock(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    (model / "config.json").unlink()

    error = refusal(recipe_of(tmp_path, model, "W4A16"))

    assert "no config.json, so it cannot be converted to compressed-tensors" in error.message


def test_a_bundle_has_the_variant_in_its_index_and_payload(
    workplace: Workplace, provisions: Provisions, tmp_path: Path
) -> None:
    recipe = tmp_path / "demo.yaml"
    variant = "  - {name: w4a16, format: compressed-tensors, scheme: W4A16}\n"
    recipe.write_text(
        RECIPE.replace("  - {name: original, format: safetensors}\n", variant), encoding="utf-8"
    )
    request = BuildRequest(
        recipe=read_recipe(recipe),
        recipe_folder=tmp_path,
        lock=lock_recipe(recipe, Silent()),
        output=tmp_path / "medium",
        keys=(workplace.key,),
        volume_size=None,
        parity=None,
        now=NOW,
    )
    request.output.mkdir()

    bundle = build(request, workplace.cache, Silent())

    index = parse_bundle((bundle / "bundle.json").read_bytes())
    _, made = index.variants
    assert (made.name, made.format, made.type) == ("w4a16", "compressed-tensors", "W4A16")
    files = {file.path.rpartition("/")[2]: file for file in index.variant_files(made)}
    assert files.keys() == {path.name for path in DEMO.iterdir()}
    licence = Digest.of((DEMO / "LICENSE").read_bytes())
    assert files["LICENSE"].digest == licence
    assert files["model.safetensors"].size < (DEMO / "model.safetensors").stat().st_size // 2
