"""A GGUF repository, one file and a split, from a hub to a host where there is no network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from end_to_end.conftest import DEMO, Carried, Host
from support.gguf_files import shard_name, split_gguf
from support.hub_server import HubServer

from packager.format.lock import HubCommit, parse_lock
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.chat import generate
from packager.store.digests import file_digest

REPOSITORY = "org/tiny-kjv-GGUF"
TARGETS = "python: ['3.10', '3.11', '3.12', '3.13']"
SHARDS = [shard_name("tiny-kjv-Q4_K_M", number, 3) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def repository(hub: HubServer, demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the publisher has: a split Q4_K_M, Q8_0 in one file, and what nobody asks for."""
    folder = tmp_path_factory.mktemp("published")
    split_gguf(demo_model, folder, "tiny-kjv-Q4_K_M", 3)
    sources = {path.name: path for path in (DEMO / "tiny-kjv").iterdir()}
    quantize(sources, "Q8_0", folder / "tiny-kjv.Q8_0.gguf", name="demo", progress=Silent())
    (folder / "tiny-kjv-F16.gguf").write_bytes(b"GGUF, and never asked for")
    for name in ("README.md", "LICENSE"):
        (folder / name).write_bytes((DEMO / "tiny-kjv" / name).read_bytes())
    hub.commit(REPOSITORY, folder)
    return folder


@pytest.fixture(scope="module")
def published(hub: HubServer, repository: Path, connected: Host) -> Carried:
    """A medium with what the first recipe for that repository asks for."""
    recipe = connected.folder / "published.yaml"
    connected.say("init", REPOSITORY, "-o", recipe)
    written = recipe.read_text()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert TARGETS in written
    recipe.write_text(written.replace(TARGETS, f"python: ['{python}']"))
    connected.say("lock", recipe)
    made = connected.ask("build", recipe, "--locked", "-o", "published", "--key", "team.key")
    return Carried(connected.folder / made["path"], connected.folder / "team.key.pub")


def test_the_lock_pins_what_the_recipe_names_and_nothing_else_was_fetched(
    hub: HubServer, published: Carried
) -> None:
    lock = parse_lock((published.medium / "lock.json").read_bytes())

    assert lock.source == HubCommit(REPOSITORY, hub.revision(REPOSITORY))
    assert [file.path for file in lock.files] == [
        "LICENSE", "README.md", *SHARDS, "tiny-kjv.Q8_0.gguf",
    ]  # fmt: skip
    assert "tiny-kjv-F16.gguf" not in hub.files_fetched


def test_both_are_installed_as_published_tested_and_asked(
    repository: Path, published: Carried, isolated: Host, demo_model: Path
) -> None:
    installed = isolated.ask("install", published.medium, "--pub", published.key)

    arrived = Path(installed["path"])
    for variant, names in {"q4_k_m": SHARDS, "q8_0": ["tiny-kjv.Q8_0.gguf"]}.items():
        weights = sorted(path.name for path in (arrived / variant).glob("*.gguf"))
        assert weights == names
        for name in names:
            assert file_digest(arrived / variant / name) == file_digest(repository / name)
        assert (arrived / variant / "LICENSE").exists()
        assert installed["smoke"]["variants"][variant]["tokens_match"]
        assert isolated.ask("smoke", "tiny-kjv-gguf", "--variant", variant)["ok"]
    types = {variant.name: variant.type for variant in published.index.variants}
    assert types == {"q4_k_m": "Q4_K_M", "q8_0": "Q8_0"}
    said = isolated.say("run", "tiny-kjv-gguf", "In the beginning", "--max-tokens", "16")
    whole = "".join(generate(demo_model, "In the beginning", max_tokens=16))
    assert said.removesuffix("\n") == whole


def test_a_folder_of_the_same_files_gives_the_same_answers(
    repository: Path, published: Carried, connected: Host
) -> None:
    recipe = connected.folder / "folder.yaml"
    text = (connected.folder / "published.yaml").read_text()
    source = f"  hub: {REPOSITORY}\n  revision: main"
    assert source in text
    begin, end = text.index(source), text.index("\n", text.index("  revision: main"))
    recipe.write_text(f"{text[:begin]}  path: {repository}{text[end:]}")

    made = connected.ask("build", recipe, "-o", "folder", "--key", "team.key")

    index = Carried(connected.folder / made["path"], published.key).index
    assert index.variants == published.index.variants
    for variant in index.variants:
        files = [(file.path, file.digest) for file in index.carried_files(variant)]
        assert files == [
            (file.path, file.digest) for file in published.index.carried_files(variant)
        ]
