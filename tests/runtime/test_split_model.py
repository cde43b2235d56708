"""A model in several files, as the store has them: under their names, with others beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gguf_files import rewrite_gguf, shard_name, split_entries, split_gguf

from packager.errors import HostError, IntegrityError
from packager.runtime.chat import generate
from packager.runtime.model_file import read_model_file


@pytest.fixture
def parts(demo_model: Path, tmp_path: Path) -> list[Path]:
    return split_gguf(demo_model, tmp_path, "demo", 3)


def test_a_split_model_has_the_size_of_all_its_parts_and_answers_as_the_whole(
    parts: list[Path], demo_model: Path
) -> None:
    whole = read_model_file(demo_model)
    split = read_model_file(parts[0])

    assert split.size == sum(part.stat().st_size for part in parts)
    assert split.context == whole.context
    answers = [
        list(generate(model, "In the beginning", max_tokens=8)) for model in (demo_model, parts[0])
    ]
    assert answers[0] == answers[1]


def test_84_a_split_whose_part_is_gone_is_refused_before_the_engine_starts(
    parts: list[Path],
) -> None:
    parts[2].unlink()
    with pytest.raises(HostError, match=shard_name("demo", 3, 3)):
        read_model_file(parts[0])


def test_84_a_split_with_a_part_of_another_is_refused_before_the_engine_starts(
    parts: list[Path], tmp_path: Path
) -> None:
    rewrite_gguf(parts[1], tmp_path / "other", split_entries(1, 3, 30))
    (tmp_path / "other").replace(parts[1])
    with pytest.raises(IntegrityError, match="hold 30 tensors; they hold 29"):
        read_model_file(parts[0])
