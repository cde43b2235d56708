"""The quality gate: figures measured at the build, kept, and refused where they are too bad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import files_of
from support.watching import Watching
from support.workplace import RECIPE

from packager.connected.cache import Cache
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.provisions.carried import Provisions
from packager.connected.variants.making import MadeVariant, make_variants
from packager.connected.workshop import Workshop
from packager.errors import PolicyError
from packager.progress import Silent

DEMO = Path(__file__).parents[2] / "packager" / "demo"
PLAIN = "  - {name: q4_k_m, format: gguf, type: Q4_K_M}\n"
COARSE = "  - {name: q2_k, format: gguf, type: Q2_K}\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def workshop_of(folder: Path, cache: Path, provisions: Provisions, most: str) -> Workshop:
    """The demo in two variants, to be measured on some pages of what it never read."""
    text = (DEMO / "held-out.txt").read_text("utf-8")[:12_000]
    (folder / "held-out.txt").write_text(text, "utf-8")
    recipe = folder / "demo.yaml"
    gate = f"quality: {{text: held-out.txt, max_perplexity_increase: {most}}}\n"
    recipe.write_text(RECIPE.replace(PLAIN, PLAIN + COARSE) + gate, "utf-8")
    return Workshop(
        recipe=read_recipe(recipe),
        recipe_folder=folder,
        lock=lock_recipe(recipe, Silent()),
        sources=files_of(DEMO / "tiny-kjv"),
        text=None,
        engine="an engine",
        libraries=provisions.libraries,
        cache=Cache(cache),
        progress=Silent(),
    )


def make(workshop: Workshop) -> tuple[dict[str, MadeVariant], Watching]:
    watching = Watching()
    made = make_variants(replace(workshop, progress=watching))
    return {one.variant.name: one for one in made}, watching


def test_the_figures_are_in_the_index_and_the_coarser_variant_is_the_worse(
    provisions: Provisions, cache: Path, tmp_path: Path
) -> None:
    made, watching = make(workshop_of(tmp_path, cache, provisions, "50%"))
    fine, coarse = made["q4_k_m"].variant.quality, made["q2_k"].variant.quality
    assert fine is not None
    assert coarse is not None
    assert fine.baseline == "BF16"
    assert fine.original_loss == coarse.original_loss
    assert fine.divergence < coarse.divergence
    assert fine.agreement > coarse.agreement
    assert fine.tokens > 1000
    assert any(note.startswith("q2_k: perplexity ") for note in watching.notes)


def test_figures_are_taken_from_the_cache_the_second_time(
    provisions: Provisions, cache: Path, tmp_path: Path
) -> None:
    first, _ = make(workshop_of(tmp_path, cache, provisions, "50%"))
    again, watching = make(workshop_of(tmp_path, cache, provisions, "50%"))
    assert again["q2_k"].variant.quality == first["q2_k"].variant.quality
    assert not [task for task in watching.tasks if task.label.startswith("quality")]


def test_a_variant_that_lost_too_much_fails_the_build_by_name(
    provisions: Provisions, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError, match=r"more than 1.0%: q2_k \+") as caught:
        make(workshop_of(tmp_path, cache, provisions, "1%"))
    assert "q4_k_m" not in caught.value.message
    assert caught.value.exit_code == 18


def test_a_damaged_figure_in_the_cache_is_measured_again(
    provisions: Provisions, cache: Path, tmp_path: Path
) -> None:
    first, _ = make(workshop_of(tmp_path, cache, provisions, "50%"))
    for path in (cache / "derived").glob("*.quality.json"):
        path.write_bytes(path.read_bytes().replace(b'"tokens":', b'"tokenz":'))
    again, watching = make(workshop_of(tmp_path, cache, provisions, "50%"))
    assert again["q2_k"].variant.quality == first["q2_k"].variant.quality
    assert any("making the figures of q2_k again" in note for note in watching.notes)
