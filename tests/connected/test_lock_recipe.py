"""From recipe to lock: what is pinned, and what is refused before a weight is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.tiny_source import LLAMA_CONFIG, RECIPE, tiny_source

from packager.connected.cache import Cache
from packager.connected.lock import (
    lock_path,
    lock_recipe,
    read_lock,
    read_recipe,
    resolve,
    unsupported,
)
from packager.connected.source.hub import Hub
from packager.connected.source.local import read_text
from packager.connected.source.retry import Patience
from packager.errors import (
    AirpackError,
    DigestMismatchError,
    HubError,
    ParseError,
    PolicyError,
    UnsafeContentError,
    UsageError,
)
from packager.format.lock import HubCommit, Lock
from packager.format.recipe import parse_recipe
from packager.progress import Silent

REPOSITORY = "org/tiny"
CONFIG_JSON = json.dumps(LLAMA_CONFIG | {"architectures": ["MambaForCausalLM"]}).encode()
QUANTIZED = json.dumps(LLAMA_CONFIG | {"quantization_config": {"bits": 4}}).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: tiny_source()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def lock_of(folder: Path, recipe: str = RECIPE) -> Lock:
    hub = Hub(Patience(sleep=lambda _: None))
    return resolve(parse_recipe(recipe), folder, Silent(), cache=Cache(folder / "cache"), hub=hub)


def refusal(folder: Path, recipe: str = RECIPE) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        lock_of(folder, recipe)
    return caught.value


def without(*paths: str, **changes: bytes) -> Mapping[str, bytes]:
    kept = {path: data for path, data in tiny_source().items() if path not in paths}
    return kept | {path.replace("__", "."): data for path, data in changes.items()}


def test_lock_pins_the_wanted_files_and_fetches_no_weights(hub: HubServer, tmp_path: Path) -> None:
    lock = lock_of(tmp_path)

    assert lock.source == HubCommit(REPOSITORY, hub.revision(REPOSITORY))
    assert lock.licence == "apache-2.0"
    assert [file.path for file in lock.files] == [
        "LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert hub.files_fetched == {"LICENSE", "README.md", "config.json"}


def test_lock_file_is_written_beside_the_recipe_and_read_back(
    hub: HubServer, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)

    lock = lock_recipe(recipe, Silent())

    assert lock_path(recipe) == tmp_path / "tiny.lock.json"
    assert read_lock(recipe) == lock
    assert hub.endpoint.encode() not in lock_path(recipe).read_bytes()


def test_lock_of_a_recipe_that_has_changed_is_refused(hub: HubServer, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    lock_recipe(recipe, Silent())
    recipe.write_text(RECIPE + "signers: 2\n")

    with pytest.raises(UsageError, match="recipe has changed") as caught:
        read_lock(recipe)

    assert caught.value.hint == f"airpack lock {recipe}"


def test_recipe_or_lock_that_is_not_there(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    with pytest.raises(UsageError, match="no such recipe"):
        read_recipe(recipe)
    recipe.write_text(RECIPE)
    with pytest.raises(UsageError, match="no lock"):
        read_lock(recipe)
    recipe.write_text("name: [")
    with pytest.raises(ParseError, match=r"tiny\.yaml: line 1"):
        read_recipe(recipe)


def test_failed_lock_leaves_the_earlier_one(hub: HubServer, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    lock_recipe(recipe, Silent())
    before = lock_path(recipe).read_bytes()
    hub.commit(REPOSITORY, without("model.safetensors"))

    with pytest.raises(UnsafeContentError):
        lock_recipe(recipe, Silent())

    assert lock_path(recipe).read_bytes() == before


def test_repository_of_pickles_is_refused_and_the_pickles_named(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, without("model.safetensors"))

    error = refusal(tmp_path)

    assert isinstance(error, UnsafeContentError)
    assert "no safetensors weights, only pickles" in error.message
    assert "'pytorch_model.bin'" in error.message


def test_repository_without_any_weights_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.commit(REPOSITORY, {"config.json": b"{}", "README.md": tiny_source()["README.md"]})

    assert refusal(tmp_path).message == f"{REPOSITORY}: has no safetensors weights"


def test_weights_that_the_recipe_does_not_include_are_named(hub: HubServer, tmp_path: Path) -> None:
    error = refusal(tmp_path, RECIPE.replace("org/tiny", 'org/tiny, include: ["*.json"]'))

    assert "includes no weights; there are 'model.safetensors'" in error.message


def test_85_pickle_that_the_recipe_includes_is_refused(hub: HubServer, tmp_path: Path) -> None:
    error = refusal(tmp_path, RECIPE.replace("org/tiny", 'org/tiny, include: ["*"]'))

    assert isinstance(error, UnsafeContentError)
    assert error.message.startswith("pytorch_model.bin: is weights as a pickle")
    assert hub.files_fetched == set()


def test_architecture_that_is_not_supported_is_refused_by_name(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, without(config__json=CONFIG_JSON))

    assert "'MambaForCausalLM'" in refusal(tmp_path).message
    as_it_is = RECIPE.replace("format: gguf, type: Q8_0", "format: safetensors")
    assert lock_of(tmp_path, as_it_is).files


def test_weights_quantized_already_are_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.commit(REPOSITORY, without(config__json=QUANTIZED))

    assert "quantized already" in refusal(tmp_path).message


def test_model_without_a_configuration_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.commit(REPOSITORY, without("config.json"))

    assert "has no config.json" in refusal(tmp_path).message


@pytest.mark.parametrize(
    ("card", "fact"),
    [
        (b"# A model\n", "states no licence"),
        (b"---\nlanguage: en\n---\n", "states no licence"),
        (b"---\nlicense: cc-by-nc-4.0\n---\n", "is under cc-by-nc-4.0"),
        (b"---\nlicense: other\nlicense_name: Qwen-Research\n---\n", "is under qwen-research"),
        (b"---\nlicense: [mit, apache-2.0]\n---\n", "states no licence"),
        (b"---\nlicense: mit\nlicense: apache-2.0\n---\n", "'license' is said twice"),
        (b"---\nlicense: &a apache-2.0\n---\n", "anchors"),
    ],
)
def test_92_licence_missing_unreadable_or_not_allowed(
    hub: HubServer, tmp_path: Path, card: bytes, fact: str
) -> None:
    hub.commit(REPOSITORY, without(README__md=card))

    error = refusal(tmp_path)

    assert isinstance(error, PolicyError)
    assert error.exit_code == 18
    assert fact in error.message


def test_92_repository_without_a_card_is_refused_where_licences_are_listed(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, without("README.md"))

    assert "states no licence" in refusal(tmp_path).message
    anything = RECIPE.replace("licence: {allow: [apache-2.0]}\n", "")
    assert lock_of(tmp_path, anything).licence is None


def test_93_revision_gone(hub: HubServer, tmp_path: Path) -> None:
    error = refusal(tmp_path, RECIPE.replace("org/tiny", "org/tiny, revision: v9"))

    assert isinstance(error, HubError)
    assert "revision v9 of org/tiny is gone" in error.message


def test_what_this_version_does_not_make_is_named_and_not_ignored(tmp_path: Path) -> None:
    recipe = """\
name: tiny
source: {hub: org/tiny}
variants:
  - {name: d, format: gguf, type: Q4_K_M}
targets:
  - {platform: linux_aarch64}
"""

    assert unsupported(parse_recipe(recipe)) == ("a bundle for linux_aarch64",)
    error = refusal(tmp_path, recipe)
    assert isinstance(error, UsageError)
    assert "does not make" in error.message
    assert "linux_x86_64" in (error.hint or "")


def test_texts_that_the_recipe_names_are_locked_and_checked(hub: HubServer, tmp_path: Path) -> None:
    recipe = RECIPE + "smoke: {text: held-out.txt}\n"
    assert "no such file" in refusal(tmp_path, recipe).message
    (tmp_path / "held-out.txt").write_bytes(b"\xff")
    assert "not UTF-8 text, at byte 0" in refusal(tmp_path, recipe).message
    (tmp_path / "held-out.txt").write_text("And it came to pass")

    (text,) = lock_of(tmp_path, recipe).texts

    assert read_text(tmp_path, text) == "And it came to pass"
    (tmp_path / "held-out.txt").write_text("And it came to pasS")
    with pytest.raises(DigestMismatchError, match=r"held-out\.txt"):
        read_text(tmp_path, text)


def write_folder(folder: Path) -> Path:
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(tmp_path, RECIPE.replace("hub: org/tiny", "path: ./gone"))

    assert "there is no such folder" in error.message


def test_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "generation_config.json").symlink_to("../secret.json")

    error = refusal(tmp_path, RECIPE.replace("hub: org/tiny", "path: ./model"))

    assert isinstance(error, UnsafeContentError)
    assert "generation_config.json: a link that leads out of the folder" in error.message
    assert "cp -rL" in (error.hint or "")


def test_link_within_the_folder_is_followed_and_linked_folders_are_not_entered(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "vocab.json").symlink_to("tokenizer.json")
    (folder / "loop").symlink_to(".")

    lock = lock_of(tmp_path, RECIPE.replace("hub: org/tiny", "path: ./model"))

    ids = {file.path: file.content for file in lock.files}
    assert ids["vocab.json"] == ids["tokenizer.json"]
    assert not any(path.startswith("loop") for path in ids)
