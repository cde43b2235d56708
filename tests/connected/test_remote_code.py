"""Keys that name code: refused, or left out where the model runs without them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from support.tiny_source import LLAMA_CONFIG
from support.workplace import Workplace

from packager.connected.build import BuildRequest, build
from packager.connected.cache import Cache
from packager.connected.inside.remote_code import Source, strip_remote_code
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.provisions.carried import Provisions
from packager.errors import UnsafeContentError
from packager.format.bundle import INDEX_NAME, encode_bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.lock import ContentId, Folder, Lock, LockedFile
from packager.progress import Silent
from packager.store.digests import file_digest

DEMO = str(files("packager") / "demo" / "tiny-kjv")
AUTO_MAP = {"auto_map": {"AutoModel": "modeling_x.X"}}


def strip(tmp_path: Path, documents: dict[str, object]) -> Source:
    place = tmp_path / "model"
    place.mkdir()
    for name, document in documents.items():
        (place / name).write_text(json.dumps(document))
    paths = {path.name: path for path in sorted(place.iterdir())}
    locked = tuple(
        LockedFile(name, p.stat().st_size, ContentId("sha256", file_digest(p).hex))
        for name, p in paths.items()
    )
    lock = Lock(Digest.of(b""), Folder("model"), None, locked, ())
    return strip_remote_code(paths, lock, Cache(tmp_path / "cache"))


def test_88_the_keys_are_left_out_at_any_depth_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    inner = {"deep": [{"trust_remote_code": True, "eps": 1e-05, "name": "Grüße"}]}
    named = {"vocab": {"auto_map": 7}}  # a word of the vocabulary, and its number
    source = strip(
        tmp_path,
        {"config.json": {**LLAMA_CONFIG, **AUTO_MAP, **inner}, "t.json": named},
    )
    assert source.removed == ("config.json: auto_map", "config.json: trust_remote_code")
    config = json.loads(source.files["config.json"].read_text())
    assert config == {**LLAMA_CONFIG, "deep": [{"eps": 1e-05, "name": "Grüße"}]}
    assert source.files["t.json"] == tmp_path / "model" / "t.json"
    for file in source.lock.files:
        assert file.content.hex == file_digest(source.files[file.path]).hex
        assert file.size == source.files[file.path].stat().st_size


def test_a_source_without_such_keys_is_not_touched(tmp_path: Path) -> None:
    source = strip(tmp_path, {"config.json": {"architectures": ["Unheard"]}})
    assert source.removed == ()
    assert source.files["config.json"] == tmp_path / "model" / "config.json"


@pytest.mark.parametrize("config", [{"architectures": ["OwnForCausalLM"]}, None])
def test_88_what_does_not_run_without_the_code_is_refused(
    tmp_path: Path, config: dict[str, object] | None
) -> None:
    documents: dict[str, object] = {"tokenizer_config.json": AUTO_MAP}
    if config is not None:
        documents["config.json"] = config
    with pytest.raises(UnsafeContentError, match="does not run without the code") as refused:
        strip(tmp_path, documents)
    assert refused.value.exit_code == 17
    assert refused.value.message.startswith("tokenizer_config.json: auto_map: ")


@pytest.fixture
def request_of_a_model_that_names_code(tmp_path: Path, workplace: Workplace) -> BuildRequest:
    """The demo model, carried as it is, with an ``auto_map``."""
    shutil.copytree(DEMO, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | AUTO_MAP))
    recipe = tmp_path / "demo.yaml"
    lines = workplace.recipe.read_text().replace(DEMO, "model").splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if "q4_k_m" not in line))
    return replace(
        workplace.request(tmp_path / "out"),
        recipe=read_recipe(recipe),
        recipe_folder=tmp_path,
        lock=lock_recipe(recipe, Silent()),
    )


def test_88_a_build_stops_at_a_key_that_names_code(
    workplace: Workplace, request_of_a_model_that_names_code: BuildRequest
) -> None:
    with pytest.raises(UnsafeContentError, match=r"config\.json: has 'auto_map'"):
        build(request_of_a_model_that_names_code, workplace.cache, Silent())
    assert not request_of_a_model_that_names_code.output.exists()


def test_88_with_the_keys_left_out_it_is_built_and_the_index_says_what_is_missing(
    workplace: Workplace, provisions: Provisions, request_of_a_model_that_names_code: BuildRequest
) -> None:
    request = replace(request_of_a_model_that_names_code, strip_remote_code=True)
    made = build(request, workplace.cache, Silent())
    data = (made / INDEX_NAME).read_bytes()
    bundle = parse_bundle(data)
    assert bundle.origin.stripped == ("config.json: auto_map",)
    assert encode_bundle(bundle) == data
    config = bundle.file_by_path["models/demo/original/config.json"]
    source = json.loads((request.recipe_folder / "model" / "config.json").read_text())
    payload = b"".join((made / volume.name).read_bytes() for volume in bundle.volumes)
    carried = json.loads(payload[config.offset : config.end])
    assert carried == {key: value for key, value in source.items() if key != "auto_map"}
