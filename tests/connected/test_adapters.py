"""LoRA adapters on the connected side: locked, fetched, converted, bound, heard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.adapters import query_adapter
from support.checkpoints import files_of
from support.hub_server import HubServer
from support.watching import Watching
from support.workplace import RECIPE

from packager.connected.cache import Cache
from packager.connected.lock import resolve
from packager.connected.provisions.carried import Provisions
from packager.connected.source.adapters import fetch_adapters
from packager.connected.source.hub import Hub
from packager.connected.source.retry import Patience
from packager.connected.variants.making import MadeVariant, make_variants
from packager.connected.workshop import Workshop
from packager.errors import (
    AirpackError,
    DigestMismatchError,
    MalformedError,
    PolicyError,
    UnsafeContentError,
    UsageError,
)
from packager.format.golden import GoldenAnswers
from packager.format.lock import Folder, HubCommit, Lock
from packager.format.recipe import parse_recipe
from packager.progress import Silent

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"
WIDTH = 256  # of the demo model
WEIGHTS = "adapter_model.safetensors"
CARD = "---\nlicense: {}\n---\n# An adapter\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the recipe is; with an adapter for the demo model in it."""
    query_adapter(tmp_path / "adapter", width=WIDTH, base_model_name_or_path="some/tiny-kjv")
    (tmp_path / "adapter" / "README.md").write_text(CARD.format("cc0-1.0"))
    (tmp_path / "adapter" / "training.log").write_text("loss\n")
    return tmp_path


def recipe_text(source: str = "{path: adapter}", *variants: str) -> str:
    """The demo's recipe with an adapter to its GGUF variant, and more variants."""
    adapter = f"{{name: legal, format: lora, base: q4_k_m, source: {source}}}"
    lines = "".join(f"  - {variant}\n" for variant in (adapter, *variants))
    return RECIPE.replace("  - {name: original, format: safetensors}\n", lines)


def lock_of(folder: Path, text: str, *, progress: Watching | None = None) -> Lock:
    recipe = parse_recipe(text)
    hub = Hub(Patience(sleep=lambda _: None))
    return resolve(recipe, folder, progress or Silent(), cache=Cache(folder / "cache"), hub=hub)


def refusal(folder: Path, text: str) -> AirpackError:
    with pytest.raises(AirpackError) as refused:
        lock_of(folder, text)
    return refused.value


def workshop_of(folder: Path, provisions: Provisions, text: str | None = None) -> Workshop:
    text = text or recipe_text()
    lock, cache = lock_of(folder, text), Cache(folder / "cache")
    return Workshop(
        recipe=parse_recipe(text),
        recipe_folder=folder,
        lock=lock,
        sources=files_of(DEMO),
        text=None,
        engine="an engine",
        libraries=provisions.libraries,
        cache=cache,
        progress=Silent(),
        adapters=fetch_adapters(lock, cache, Silent(), recipe_folder=folder),
    )


def make(workshop: Workshop) -> tuple[dict[str, MadeVariant], Watching]:
    watching = Watching()
    made = make_variants(replace(workshop, progress=watching))
    return {variant.variant.name: variant for variant in made}, watching


def test_a_folder_is_locked_with_peft_s_two_files_and_the_card(folder: Path) -> None:
    watching = Watching()
    [adapter] = lock_of(folder, recipe_text(), progress=watching).adapters
    assert adapter.variant == "legal"
    assert adapter.source == Folder("adapter")
    assert adapter.licence == "cc0-1.0"
    assert [file.path for file in adapter.files] == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert not any("trained on" in note for note in watching.notes)


def test_a_base_of_another_name_is_said(folder: Path) -> None:
    query_adapter(folder / "adapter", width=WIDTH, base_model_name_or_path="org/other")
    watching = Watching()
    lock_of(folder, recipe_text(), progress=watching)
    assert [note for note in watching.notes if "org/other" in note] == [
        f"legal: trained on 'org/other', to be applied to {str(DEMO)!a}"
    ]


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    adapter = {p.name: p.read_bytes() for p in (folder / "adapter").iterdir()}
    pickles = {**adapter, "adapter_model.bin": b"\x80\x02}q\x00."}
    del pickles["adapter_model.safetensors"]
    with HubServer({"org/legal": adapter, "org/pickles": pickles}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_a_repository_is_pinned_and_only_what_is_wanted_is_fetched(
    hub: HubServer, folder: Path
) -> None:
    lock = lock_of(folder, recipe_text("{hub: org/legal}"))
    [adapter] = lock.adapters
    assert adapter.source == HubCommit("org/legal", hub.revision("org/legal"))
    assert WEIGHTS not in hub.files_fetched  # not before the build

    patient = Hub(Patience(sleep=lambda _: None))
    cache = Cache(folder / "cache")
    fetched = fetch_adapters(lock, cache, Silent(), recipe_folder=folder, hub=patient)

    assert set(fetched["legal"]) == {file.path for file in adapter.files}
    assert "training.log" not in hub.files_fetched
    weights = fetched["legal"][WEIGHTS]
    assert weights.read_bytes() == (folder / "adapter" / WEIGHTS).read_bytes()


def test_85_an_adapter_of_pickles_alone_is_refused(hub: HubServer, folder: Path) -> None:
    error = refusal(folder, recipe_text("{hub: org/pickles}"))
    assert isinstance(error, UnsafeContentError)
    assert "org/pickles: has no adapter_model.safetensors, only pickles" in error.message
    assert hub.files_fetched == set()


@pytest.mark.parametrize("place", [".", "checkpoint-500"])
def test_90_an_adapter_among_the_model_s_own_files_is_refused(tmp_path: Path, place: str) -> None:
    shutil.copytree(DEMO, tmp_path / "model")
    query_adapter(tmp_path / "model" / place, width=WIDTH)
    text = RECIPE.replace(f"{{path: {DEMO}}}", "{path: model, include: ['**']}")
    error = refusal(tmp_path, text)
    assert isinstance(error, UnsafeContentError)
    assert "adapter_config.json: an adapter, whose base loaders" in error.message
    assert "format: lora" in (error.hint or "")


@pytest.mark.parametrize("missing", ["adapter_config.json", WEIGHTS])
def test_a_folder_that_is_no_adapter_is_refused(folder: Path, missing: str) -> None:
    (folder / "adapter" / missing).unlink()
    error = refusal(folder, recipe_text())
    assert isinstance(error, UsageError)
    assert f"adapter: has no {missing}, so it is no adapter" in error.message


def test_what_llama_cpp_does_not_compute_is_refused_at_the_lock(folder: Path) -> None:
    query_adapter(folder / "adapter", width=WIDTH, use_dora=True)
    error = refusal(folder, recipe_text())
    assert error.exit_code == 2
    assert "use_dora is set" in error.message


def test_92_an_adapter_s_licence_must_be_allowed_too(folder: Path) -> None:
    (folder / "adapter" / "README.md").write_text(CARD.format("cc-by-nc-4.0"))
    error = refusal(folder, recipe_text())
    assert isinstance(error, PolicyError)
    assert "adapter is under cc-by-nc-4.0, and the recipe allows cc0-1.0" in error.message


def test_an_adapter_that_changed_since_the_lock_is_refused(folder: Path) -> None:
    lock = lock_of(folder, recipe_text())
    weights = folder / "adapter" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DigestMismatchError):
        fetch_adapters(lock, Cache(folder / "cache"), Silent(), recipe_folder=folder)


def test_it_is_converted_bound_to_its_base_and_heard_with_it(
    folder: Path, provisions: Provisions
) -> None:
    made, watching = make(workshop_of(folder, provisions))

    model, legal = made["q4_k_m"], made["legal"]
    assert legal.variant.format == "lora"
    assert legal.variant.type == "F32"
    assert legal.variant.base is not None
    assert legal.variant.base.variant == "q4_k_m"
    assert legal.variant.base.digest == model.members[0].digest
    assert [member.path for member in legal.members] == [
        "models/demo/legal/demo-legal.gguf", "models/demo/legal/README.md",
    ]  # fmt: skip
    assert b"some/tiny-kjv" not in legal.members[0].source.read_bytes()
    alone, adapted = model.variant.golden, legal.variant.golden
    assert isinstance(alone, GoldenAnswers)
    assert isinstance(adapted, GoldenAnswers)
    assert alone.prompts == adapted.prompts
    assert alone.answers != adapted.answers
    assert "legal: recording how it answers" in watching.notes


def test_what_is_in_the_cache_is_not_made_again_and_what_is_damaged_there_is(
    folder: Path, provisions: Provisions
) -> None:
    workshop = workshop_of(folder, provisions)
    first, watching = make(workshop)
    assert "convert demo-legal" in [task.label for task in watching.tasks]
    second, watching = make(workshop)
    assert "convert demo-legal" not in [task.label for task in watching.tasks]
    assert "legal: recording how it answers" not in watching.notes
    assert second == first

    file = first["legal"].members[0].source
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    third, watching = make(workshop)
    assert "convert demo-legal" in [task.label for task in watching.tasks]
    assert third == first


def test_an_adapter_for_a_model_of_another_shape_is_refused_by_name(
    folder: Path, provisions: Provisions
) -> None:
    query_adapter(folder / "adapter", width=128)
    with pytest.raises(MalformedError) as refused:
        make(workshop_of(folder, provisions))
    assert refused.value.message.startswith("variant legal: the adapter changes")
    assert "is it for another model?" in refused.value.message


def test_two_adapters_to_one_base_are_two_variants(folder: Path, provisions: Provisions) -> None:
    query_adapter(folder / "other", width=WIDTH, seed=2)
    (folder / "other" / "README.md").write_text(CARD.format("cc0-1.0"))
    more = "{name: medical, format: lora, base: q4_k_m, source: {path: other}}"
    made, _ = make(workshop_of(folder, provisions, recipe_text("{path: adapter}", more)))
    assert made["legal"].variant.base == made["medical"].variant.base
    assert made["legal"].members[0].digest != made["medical"].members[0].digest


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ([], "published: has no config.json, so it cannot be converted to lora"),
        (["config.json"], "variant legal: an adapter is converted by the model's config.json"),
    ],
)
def test_a_base_that_is_published_as_gguf_takes_no_adapter_and_that_is_said(
    folder: Path, demo_model: Path, beside: list[str], said: str
) -> None:
    (folder / "published").mkdir()
    for file in (demo_model, *(DEMO / name for name in beside)):
        shutil.copy(file, folder / "published")
    error = refusal(folder, PUBLISHED)
    assert isinstance(error, UsageError)
    assert said in error.message


PUBLISHED = """\
name: demo
source: {path: published}
variants:
  - {name: q4_k_m, format: gguf, file: demo.gguf}
  - {name: legal, format: lora, base: q4_k_m, source: {path: adapter}}
"""
