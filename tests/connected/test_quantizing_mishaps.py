"""What a recipe's author gets wrong, and what happens on the way, ends early and is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.adapters import QUERY, half, write_adapter_folder
from support.checkpoints import files_of
from support.watching import WatchedTask, Watching
from support.workplace import RECIPE

from packager.connected.cache import Cache
from packager.connected.expected import expect
from packager.connected.lock import lock_recipe, read_recipe
from packager.connected.provisions.carried import LIBGOMP_SOURCE, Provisions, libgomp_wheel
from packager.connected.source.adapters import fetch_adapters
from packager.connected.variants.making import make_variants
from packager.connected.workshop import Workshop
from packager.errors import AirpackError, MalformedError, NoSpaceError, UsageError
from packager.progress import Progress, Silent

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"
HELD_OUT = DEMO.with_name("held-out.txt").read_text("utf-8")
QUALITY = "quality: {text: text.txt, max_perplexity_increase: 50%}\n"
IMATRIX = "calibrate: {text: text.txt, imatrix: true}\n"


def recipe_of(folder: Path, *variants: str, more: str = "", text: str = HELD_OUT[:3000]) -> Path:
    (folder / "text.txt").write_text(text, "utf-8")
    path = folder / "demo.yaml"
    head, tail = RECIPE.split("variants:\n")
    lines = "".join(f"  - {variant}\n" for variant in variants)
    path.write_text(f"{head}variants:\n{lines}{tail[tail.index('smoke') :]}{more}", "utf-8")
    return path


def gguf(name: str, type_name: str, more: str = "") -> str:
    return f"{{name: {name}, format: gguf, type: {type_name}{more}}}"


def workshop_of(recipe: Path, provisions: Provisions, progress: Progress) -> Workshop:
    lock, cache = lock_recipe(recipe, Silent()), Cache(recipe.parent / "cache")
    return Workshop(
        recipe=read_recipe(recipe),
        recipe_folder=recipe.parent,
        lock=lock,
        sources=files_of(DEMO),
        text=None,
        engine="an engine",
        libraries=provisions.libraries,
        cache=cache,
        progress=progress,
        adapters=fetch_adapters(lock, cache, Silent(), recipe_folder=recipe.parent),
    )


def refusal(recipe: Path) -> AirpackError:
    with pytest.raises(UsageError) as caught:
        lock_recipe(recipe, Silent())
    assert not recipe.with_suffix(".lock.json").exists()
    return caught.value


@pytest.mark.parametrize(
    ("variant", "meant"),
    [
        (gguf("a", "Q4_KM"), "Q4_K_M"),
        (gguf("a", "IQ2XXS"), "IQ2_XXS"),
        (gguf("a", "Q8_0", ", output: Q8"), "Q8_0"),
        (gguf("a", "Q8_0", ", overrides: {blk.*: Q4_K_M}"), "Q4_K"),
    ],
)
def test_a_misspelt_type_is_refused_at_the_lock_with_the_one_that_was_meant(
    tmp_path: Path, variant: str, meant: str
) -> None:
    error = refusal(recipe_of(tmp_path, variant))

    assert error.message.startswith("variant a: ")
    assert (error.hint or "").startswith(f"{meant}, if that was meant; else choose of F32, ")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (", output: IQ2_XS", "output: IQ2_XS"),
        (", token_embedding: IQ1_S", "token_embedding: IQ1_S"),
        (", overrides: {blk.0.*: IQ3_XXS}", "overrides: blk.0.*: IQ3_XXS"),
    ],
)
def test_the_single_tensor_that_needs_a_matrix_is_named_and_not_the_file(
    tmp_path: Path, more: str, what: str
) -> None:
    error = refusal(recipe_of(tmp_path, gguf("a", "Q4_K_M", more)))

    assert error.message.startswith(f"variant a: {what} with so few bits needs")


def test_a_text_that_nothing_would_be_made_of_is_refused_with_what_was_meant(
    tmp_path: Path,
) -> None:
    error = refusal(recipe_of(tmp_path, gguf("a", "Q4_K_M"), more="calibrate: {text: text.txt}\n"))

    assert error.hint == "calibrate: {text: text.txt, imatrix: true}"


@pytest.mark.parametrize("more", [QUALITY, IMATRIX])
def test_a_gate_or_a_matrix_for_no_gguf_variant_is_refused(tmp_path: Path, more: str) -> None:
    variant = "{name: w4a16, format: compressed-tensors, scheme: W4A16}"

    error = refusal(recipe_of(tmp_path, variant, more=more))

    assert error.message.startswith(f"recipe: {more.partition(':')[0]}: ")


@pytest.mark.parametrize("more", [QUALITY, IMATRIX])
@pytest.mark.parametrize("text", ["", "a few words"])
def test_a_text_too_short_for_any_tokenizer_is_refused_at_the_lock(
    tmp_path: Path, more: str, text: str
) -> None:
    error = refusal(recipe_of(tmp_path, gguf("a", "Q4_K_M"), more=more, text=text))

    assert error.message.startswith(f"text.txt: {len(text)} bytes, too short a text")


def test_an_increase_that_is_no_share_is_told_how_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(AirpackError, match="expected text, as 5%"):
        read_recipe(recipe_of(tmp_path, gguf("a", "Q8_0"), more=QUALITY.replace("50%", "0.05")))


def test_of_several_variants_the_one_whose_pattern_names_no_tensor_is_named(
    tmp_path: Path,
) -> None:
    recipe = recipe_of(
        tmp_path, gguf("a", "Q8_0"), gguf("b", "Q8_0", ", overrides: {blk.*.attn_x.weight: F16}")
    )

    with pytest.raises(UsageError, match=r"variant b: overrides: 'blk\.\*\.attn_x\.weight'"):
        expect(read_recipe(recipe), lock_recipe(recipe, Silent()), files_of(DEMO))


def test_an_adapter_for_another_model_is_refused_before_the_model_is_quantized(
    provisions: Provisions, tmp_path: Path
) -> None:
    shapes = {half(QUERY, "A"): (2, 64), half(QUERY, "B"): (64, 2)}
    write_adapter_folder(tmp_path / "adapter", shapes)
    (tmp_path / "adapter" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    adapter = "{name: legal, format: lora, base: a, source: {path: adapter}}"
    watching = Watching()
    workshop = workshop_of(recipe_of(tmp_path, gguf("a", "Q8_0"), adapter), provisions, watching)

    with pytest.raises(MalformedError, match=r"^variant legal: "):
        make_variants(workshop)

    assert watching.tasks == []
    assert list((tmp_path / "cache").rglob("*.gguf")) == []


class Interrupted(Watching):
    """A person who presses Ctrl-C when the task ``label`` begins."""

    label = "quality: b"

    @contextmanager
    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> Iterator[WatchedTask]:
        if label == self.label:
            raise KeyboardInterrupt
        with super().task(label, total, unit=unit, done=done) as task:
            yield task


def test_what_was_measured_before_an_interrupt_is_not_measured_again(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "Q8_0"), gguf("b", "Q4_0"), more=QUALITY + IMATRIX)
    with pytest.raises(KeyboardInterrupt):
        make_variants(workshop_of(recipe, provisions, Interrupted()))
    assert list((tmp_path / "cache").rglob(".tmp-*")) == []
    watching = Watching()

    made = make_variants(workshop_of(recipe, provisions, watching))

    labels = [task.label for task in watching.tasks]
    assert [label for label in labels if label.startswith("quality")] == [
        "quality: original",
        "quality: b",
    ]
    assert all(one.variant.quality is not None for one in made)
    # The matrix and both measurements are of the original, which is read once for all of them.
    assert labels.count("checking the original") == 1
    assert any("flatters it; take another" in note for note in watching.notes)


def test_101_no_room_for_the_originals_answers_is_told_with_the_sizes(
    provisions: Provisions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_of(
        recipe_of(tmp_path, gguf("a", "Q8_0"), more=QUALITY), provisions, Silent()
    )

    class Full:
        free = 409_600

    monkeypatch.setattr("packager.connected.artefacts.shutil.disk_usage", lambda _path: Full)

    with pytest.raises(NoSpaceError, match=r"MiB to keep the original's answers .* 400 KiB free"):
        make_variants(workshop)

    derived = tmp_path / "cache" / "derived"
    assert [path for path in derived.iterdir() if path.name.startswith(".")] == []
    assert len(list(derived.glob("*.gguf"))) == 2  # what was quantized is kept


def test_what_a_kill_left_of_the_answers_is_swept_by_the_next_build(
    provisions: Provisions, tmp_path: Path
) -> None:
    workshop = workshop_of(recipe_of(tmp_path, gguf("a", "Q8_0")), provisions, Silent())
    derived = tmp_path / "cache" / "derived"
    derived.mkdir(parents=True)
    (derived / ".tmp-abc").write_bytes(b"answers")
    (derived / ".published-abc").mkdir()
    (derived / ".published-abc" / "model.gguf").symlink_to("nowhere")

    make_variants(workshop)

    assert [path for path in derived.iterdir() if path.name.startswith(".")] == []


def test_gguf_variants_alone_are_measured_and_the_others_named(
    provisions: Provisions, tmp_path: Path
) -> None:
    watching = Watching()
    workshop = workshop_of(
        recipe_of(
            tmp_path,
            gguf("a", "Q8_0"),
            "{name: w4a16, format: compressed-tensors, scheme: W4A16}",
            "{name: original, format: safetensors}",
            more=QUALITY,
        ),
        provisions,
        watching,
    )

    make_variants(workshop)

    assert "quality is measured of GGUF models alone: not of w4a16" in watching.notes


def test_the_wheel_that_has_libgomp_inside_is_not_called_one_of_the_bundle(
    tmp_path: Path, provisions: Provisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the note would look for that wheel on the medium."""
    (wheel,) = (provisions.libraries.parent / "libgomp").glob("*.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    watching = Watching()
    (target,) = read_recipe(recipe_of(tmp_path, gguf("a", "Q8_0"))).targets

    found = libgomp_wheel(target, tmp_path / "place", watching)

    assert found.read_bytes() == wheel.read_bytes()
    assert watching.notes == [
        f"fetching libgomp.so.1 for linux_x86_64, which {LIBGOMP_SOURCE} has inside"
    ]
