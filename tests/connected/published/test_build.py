"""GGUF models as they are published: what is bundled, and which file of a publisher is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from support.gguf_files import read_header, rewrite_gguf, shard_name, split_entries
from support.published import ONE, SPLIT, recipe_for
from support.workplace import Workplace

from packager.connected.build import build
from packager.connected.provisions.carried import Provisions
from packager.errors import (
    AirpackError,
    IntegrityError,
    MalformedError,
    TruncatedError,
    UnsafeContentError,
)
from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle
from packager.progress import Silent
from packager.quantize.gguf_writer import Entry, text, uint32
from packager.store.digests import file_digest

DEMO = Path(str(files("packager") / "demo"))
Make = Callable[..., Bundle]


@pytest.fixture
def make(workplace: Workplace, provisions: Provisions) -> Make:
    """Lock, build, and read the index."""

    def lock_and_build(folder: Path, file: str, *more: str, licence: str = "apache-2.0") -> Bundle:
        recipe = recipe_for(folder, file, *more, licence=licence)
        place = replace(workplace, recipe=recipe)
        output = build(place.request(folder.parent / "out"), workplace.cache, Silent())
        return parse_bundle((output / INDEX_NAME).read_bytes())

    return lock_and_build


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
