"""GGUF variants: what is refused before the hours, what is made together, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of
from support.watching import Watching
from support.workplace import RECIPE, Workplace

from packager.connected.build import build
from packager.connected.cache import Cache
from packager.connected.lock import lock_recipe, read_lock, read_recipe
from packager.connected.provisions.carried import Provisions
from packager.connected.variants.gguf import gguf_key
from packager.connected.variants.locked_matrix import read_locked_matrix
from packager.connected.variants.making import MadeVariant, make_variants
from packager.connected.workshop import Workshop
from packager.errors import (
    AirpackError,
    DigestMismatchError,
    EngineError,
    MalformedError,
    UsageError,
)
from packager.format import canonical
from packager.format.digest import Digest
from packager.progress import Silent
from packager.quantize import VERSION
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance, read_matrix
from packager.quantize.mix import Override, Overrides, is_quantizable
from packager.quantize.pipeline import quantize, quantize_all
from packager.quantize.types import tensor_type
from packager.quantize.wanted import Wanted

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"
HELD_OUT = DEMO.with_name("held-out.txt")


def recipe_of(folder: Path, *variants: str, more: str = "") -> Path:
    """The demo's recipe with other GGUF variants, in flow style."""
    path = folder / "demo.yaml"
    lines = "".join(f"  - {variant}\n" for variant in variants)
    path.write_text(
        RECIPE.replace("  - {name: q4_k_m, format: gguf, type: Q4_K_M}\n", lines) + more,
        encoding="utf-8",
    )
    return path


def gguf(name: str, type_name: str, more: str = "") -> str:
    return f"{{name: {name}, format: gguf, type: {type_name}{more}}}"


def workshop_of(recipe: Path, cache: Path, provisions: Provisions) -> Workshop:
    return Workshop(
        recipe=read_recipe(recipe),
        recipe_folder=recipe.parent,
        lock=lock_recipe(recipe, Silent()),
        sources=files_of(DEMO),
        text=None,
        engine="an engine",
        libraries=provisions.libraries,
        cache=Cache(cache),
        progress=Watching(),
    )


def make(workshop: Workshop) -> tuple[tuple[MadeVariant, ...], Watching]:
    watching = Watching()
    return make_variants(replace(workshop, progress=watching)), watching


def model_of(made: MadeVariant) -> Path:
    return made.members[0].source


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> ImportanceMatrix:
    """Numbers for every tensor of the demo model but its embeddings."""
    random = np.random.default_rng(1)
    f32 = tmp_path_factory.mktemp("f32") / "m.gguf"
    made = quantize(files_of(DEMO), "F32", f32, name="m", progress=Silent())
    return ImportanceMatrix(
        {
            tensor.name: TensorImportance(
                random.random((1, tensor.shape[-1]), np.float32) * 100, np.array([50])
            )
            for tensor in made.tensors
            if is_quantizable(tensor.name, tensor.shape) and tensor.name != "token_embd.weight"
        },
        ("a.txt",),
        1,
        512,
    )


def quantizations(watching: Watching) -> list[str]:
    return [task.label for task in watching.tasks if task.label.startswith("quantize")]


def test_all_that_is_missing_is_made_in_one_pass_and_the_rest_is_taken_from_the_cache(
    provisions: Provisions, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = recipe_of(tmp_path, gguf("a", "Q8_0"), gguf("b", "Q4_K"), gguf("c", "BF16"))
    made, watching = make(workshop_of(first, cache, provisions))
    assert quantizations(watching) == ["quantize Q8_0, Q4_K_M, BF16"]

    second = recipe_of(
        tmp_path, gguf("a", "Q8_0"), gguf("d", "Q5_0"), gguf("b", "Q4_K_M"), gguf("e", "Q4_1")
    )
    again, watching = make(workshop_of(second, cache, provisions))

    assert quantizations(watching) == ["quantize Q5_0, Q4_1"]
    assert [note for note in watching.notes if "taken from the cache" in note] == [
        "a: quantized before, taken from the cache",
        "b: quantized before, taken from the cache",
    ]
    assert [v.variant.name for v in again] == ["a", "d", "b", "e", "original"]
    assert [v.variant.type for v in again[:4]] == ["Q8_0", "Q5_0", "Q4_K_M", "Q4_1"]
    assert model_of(again[2]) == model_of(made[1])
    for variant in again[:4]:
        alone = tmp_path / "alone.gguf"
        assert variant.variant.type is not None
        quantize(files_of(DEMO), variant.variant.type, alone, name="demo", progress=Silent())
        assert model_of(variant).read_bytes() == alone.read_bytes()
    assert list(cache.rglob(".tmp-*")) == []


def test_variants_that_are_the_same_file_are_made_once(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "Q4_K"), gguf("b", "Q4_K_M"))

    made, watching = make(workshop_of(recipe, tmp_path / "cache", provisions))

    assert quantizations(watching) == ["quantize Q4_K_M"]
    assert model_of(made[0]) == model_of(made[1])


def test_a_pass_that_fails_leaves_nothing_in_the_cache(
    provisions: Provisions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    recipe = recipe_of(tmp_path, gguf("a", "Q8_0"), gguf("b", "Q4_K_M"))

    def fail(*_: object, **__: object) -> None:
        raise EngineError("gone")

    monkeypatch.setattr("packager.quantize.worker.Worker.convert", fail)
    with pytest.raises(EngineError, match="gone"):
        make(workshop_of(recipe, cache, provisions))

    assert [path for path in (cache / "derived").iterdir() if path.is_file()] == []


def test_tensors_that_fell_back_are_told_when_made_and_when_taken_from_the_cache(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "Q4_K_S"))
    recipe.write_text(recipe.read_text().replace("  - {name: original, format: safetensors}\n", ""))
    workshop = workshop_of(recipe, tmp_path / "cache", provisions)
    of_96_columns = replace(workshop, sources=files_of(REFERENCES / "llama3"))

    for _ in ("made", "taken"):
        made, watching = make(of_96_columns)

        assert ("blk.0.attn_q.weight", "Q4_K", "Q5_0") in made[0].fallbacks
        (note,) = [note for note in watching.notes if "Q5_0 instead of Q4_K" in note]
        assert note.startswith("a: Q5_0 instead of Q4_K, whose blocks the rows do not fill: ")
        assert note.endswith(" more")
    assert quantizations(watching) == []


def test_overrides_make_another_file_under_another_key(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(
        tmp_path,
        gguf("a", "Q4_K_M"),
        gguf("b", "Q4_K_M", ', output: Q8_0, overrides: {"*.attn_v.weight": Q8_0}'),
    )

    made, watching = make(workshop_of(recipe, tmp_path / "cache", provisions))

    expected = tmp_path / "expected.gguf"
    overrides = Overrides((Override("*.attn_v.weight", tensor_type("Q8_0")),), tensor_type("Q8_0"))
    wanted = replace(Wanted.of("Q4_K_M"), overrides=overrides)
    quantize_all(files_of(DEMO), {expected: wanted}, name="demo", progress=Silent())
    assert quantizations(watching) == ["quantize Q4_K_M, Q4_K_M"]
    assert model_of(made[1]).read_bytes() == expected.read_bytes()
    assert model_of(made[0]).read_bytes() != expected.read_bytes()


def test_the_key_of_a_plain_variant_is_what_it_was_before_there_were_overrides(
    provisions: Provisions, tmp_path: Path, matrix: ImportanceMatrix
) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "Q4_K_M"))
    workshop = workshop_of(recipe, tmp_path / "cache", provisions)
    plain = Wanted.of("Q4_K_M")
    weighed = replace(plain, matrix=matrix, matrix_name="m.gguf")

    files = [[file.path, str(file.content)] for file in workshop.lock.files]
    assert gguf_key(workshop, plain) == Digest.of(
        canonical.encode(
            {
                "what": "gguf",
                "quantize": VERSION,
                "engine": "an engine",
                "name": "demo",
                "type": "Q4_K_M",
                "files": files,
            }
        )
    )
    others = {
        gguf_key(workshop, file)
        for file in (
            plain,
            weighed,
            replace(weighed, matrix_name="n.gguf"),
            replace(weighed, matrix=replace(matrix, chunk_count=2)),
            replace(plain, overrides=Overrides(output=tensor_type("Q8_0"))),
            replace(plain, overrides=Overrides(token_embedding=tensor_type("Q8_0"))),
        )
    }
    assert len(others) == 6


def test_a_ready_matrix_weighs_the_variants_that_quantize_and_no_others(
    provisions: Provisions, tmp_path: Path, matrix: ImportanceMatrix
) -> None:
    recipe = recipe_of(
        tmp_path,
        gguf("a", "IQ2_XXS"),
        gguf("b", "BF16"),
        more="calibrate: {imatrix: some/m.gguf}\n",
    )
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "m.gguf").write_bytes(matrix.encode())
    (locked,) = lock_recipe(recipe, Silent()).texts

    made, _ = make(workshop_of(recipe, tmp_path / "cache", provisions))

    assert (locked.path, locked.content.hex) == ("some/m.gguf", matrix.digest.hex)
    assert (made[0].matrix, made[1].matrix) == (matrix.digest, None)
    expected = tmp_path / "expected.gguf"
    wanted = replace(Wanted.of("IQ2_XXS"), matrix=matrix, matrix_name="m.gguf")
    quantize_all(files_of(DEMO), {expected: wanted}, name="demo", progress=Silent())
    assert model_of(made[0]).read_bytes() == expected.read_bytes()
    assert tmp_path.name.encode() not in expected.read_bytes()[: 1 << 20]


def test_a_matrix_is_gathered_on_the_text_once_and_weighs_the_variants(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(
        tmp_path,
        gguf("a", "IQ2_XXS"),
        gguf("b", "BF16"),
        more="calibrate: {text: some.txt, imatrix: true}\n",
    )
    (tmp_path / "some.txt").write_text(HELD_OUT.read_text()[:12_000])
    workshop = workshop_of(recipe, tmp_path / "cache", provisions)

    made, watching = make(workshop)
    again, once_more = make(workshop)

    assert [task.label for task in watching.tasks if "matrix" in task.label]
    assert not [task.label for task in once_more.tasks if "matrix" in task.label]
    assert quantizations(watching) == ["quantize BF16", "quantize IQ2_XXS"]
    assert again == made
    (kept,) = (tmp_path / "cache" / "derived").glob("*.imatrix.gguf")
    matrix = read_matrix(kept)
    assert matrix.datasets == ("some.txt",)
    assert (made[0].matrix, made[1].matrix) == (matrix.digest, None)
    expected = tmp_path / "expected.gguf"
    wanted = replace(Wanted.of("IQ2_XXS"), matrix=matrix, matrix_name="demo.imatrix.gguf")
    quantize_all(files_of(DEMO), {expected: wanted}, name="demo", progress=Silent())
    assert model_of(made[0]).read_bytes() == expected.read_bytes()


def test_a_gathered_matrix_that_is_damaged_in_the_cache_is_gathered_again(
    provisions: Provisions, tmp_path: Path
) -> None:
    recipe = recipe_of(
        tmp_path, gguf("a", "Q4_0"), more="calibrate: {text: some.txt, imatrix: true}\n"
    )
    (tmp_path / "some.txt").write_text(HELD_OUT.read_text()[:12_000])
    workshop = workshop_of(recipe, tmp_path / "cache", provisions)
    made, _ = make(workshop)
    (kept,) = (tmp_path / "cache" / "derived").glob("*.imatrix.gguf")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])

    again, watching = make(workshop)

    assert any("making the importance matrix again" in note for note in watching.notes)
    assert len(kept.read_bytes()) == len(whole)
    assert again[0].variant.name == made[0].variant.name


def test_plain_floats_gather_no_matrix(provisions: Provisions, tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, gguf("a", "BF16"), more="calibrate: {text: some.txt, imatrix: true}\n"
    )
    (tmp_path / "some.txt").write_text("too short to gather anything")

    made, _ = make(workshop_of(recipe, tmp_path / "cache", provisions))

    assert made[0].matrix is None


def refusal(recipe: Path) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        lock_recipe(recipe, Silent())
    return caught.value


@pytest.mark.parametrize(
    "variant",
    [gguf("a", "IQ2_M"), gguf("a", "Q2_K_S"), gguf("a", "F16", ", overrides: {blk.*: IQ3_XXS}")],
)
@pytest.mark.parametrize("more", ["", "calibrate: {text: a.txt}\n"])
def test_what_needs_a_matrix_is_refused_at_the_lock_without_one(
    variant: str, more: str, tmp_path: Path
) -> None:
    error = refusal(recipe_of(tmp_path, variant, more=more))

    assert isinstance(error, UsageError)
    if not more:
        assert "variant a: " in error.message
        assert "importance matrix" in error.message
        assert "calibrate: {text: FILE, imatrix: true}" in (error.hint or "")
    assert not (tmp_path / "demo.lock.json").exists()


def test_what_needs_a_matrix_is_refused_at_the_begin_of_a_build(
    workplace: Workplace, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_of(tmp_path, gguf("a", "IQ1_S")))
    request = replace(workplace.request(tmp_path / "out"), recipe=recipe)

    with pytest.raises(UsageError, match=r"variant a: IQ1_S .* importance matrix"):
        build(request, Cache(tmp_path / "cache"), Silent())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (", overrides: {blk.*: Q4_K_M}", "variant a: 'Q4_K_M' is not the type of a tensor"),
        (", output: Q9_Z", "variant a: 'Q9_Z' is not the type of a tensor"),
    ],
)
def test_an_unknown_type_of_a_tensor_is_refused_at_the_lock(
    more: str, match: str, tmp_path: Path
) -> None:
    error = refusal(recipe_of(tmp_path, gguf("a", "Q4_0", more)))

    assert error.exit_code == 2
    assert error.message.startswith(match)
    assert "IQ4_XS" in (error.hint or "")


def test_a_matrix_that_is_missing_or_broken_is_refused_at_the_lock(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "Q4_0"), more="calibrate: {imatrix: m.gguf}\n")
    assert "no such file" in refusal(recipe).message
    (tmp_path / "m.gguf").write_bytes(b"GGUF")

    assert refusal(recipe).exit_code == 10
    (tmp_path / "m.gguf").write_bytes(b"")
    assert isinstance(refusal(recipe), MalformedError)


def test_a_matrix_that_changed_since_the_lock_is_refused(
    matrix: ImportanceMatrix, workplace: Workplace, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, gguf("a", "IQ1_S"), more="calibrate: {imatrix: m.gguf}\n")
    (tmp_path / "m.gguf").write_bytes(matrix.encode())
    lock_recipe(recipe, Silent())
    (tmp_path / "m.gguf").write_bytes(replace(matrix, chunk_count=9).encode())

    with pytest.raises(DigestMismatchError, match=r"m\.gguf: not the bytes that the lock says"):
        read_locked_matrix(tmp_path, read_lock(recipe).texts[0])
