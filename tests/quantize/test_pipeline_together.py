"""Several files made in one pass, and several passes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import (
    change_tensor,
    files_of,
    layer_matrices,
    weights_size,
    write_llama,
)
from support.watching import Watching

from packager.errors import HostError, UsageError
from packager.progress import Silent
from packager.quantize import worker
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.pipeline import quantize, quantize_all
from packager.quantize.types import file_type
from packager.quantize.wanted import Wanted


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def three_files(folder: Path) -> dict[Path, Wanted]:
    """A file of plain floats, one of blocks of 32, and a mixture."""
    folder.mkdir(exist_ok=True)
    return {folder / f"{name}.gguf": Wanted.of(name) for name in ("BF16", "Q8_0", "Q4_K_M")}


def test_files_made_together_are_those_made_alone_and_the_source_is_read_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = three_files(tmp_path / "together")
    read = []
    monkeypatch.setattr(
        worker,
        "read_all",
        lambda descriptor, view, *place, whole=worker.read_all: (
            read.append(len(view)),
            whole(descriptor, view, *place),
        ),
    )
    watched = Watching()

    results = quantize_all(files_of(model), wanted, name="m", progress=watched)

    total = weights_size(model)
    assert sum(read) == total
    assert [(task.total, task.done) for task in watched.tasks] == [(total, total)]
    for out, file in wanted.items():
        alone = tmp_path / "alone.gguf"
        result = quantize(files_of(model), file.kind.name, alone, name="m", progress=Silent())
        assert out.read_bytes() == alone.read_bytes()
        assert results[out] == result


def test_what_one_of_several_files_cannot_hold_leaves_none_of_them(model: Path) -> None:
    change_tensor(model, "lm_head.weight", lambda values: values.__setitem__(5, 0x4800))
    folder = model.parent / "out"
    wanted = {**three_files(folder), folder / "F16.gguf": Wanted.of("F16")}

    with pytest.raises(UsageError, match="beyond the range of F16"):
        quantize_all(files_of(model), wanted, name="m", progress=Silent())

    assert list(folder.iterdir()) == []


def test_a_second_file_without_room_leaves_none_of_them(model: Path) -> None:
    folder = model.parent / "out"
    wanted = {**three_files(folder), folder / "no" / "F16.gguf": Wanted.of("F16")}

    with pytest.raises(HostError, match="no such file"):
        quantize_all(files_of(model), wanted, name="m", progress=Silent())

    assert list(folder.iterdir()) == []


def test_many_types_are_counted_where_a_bar_has_no_room_to_name_them(
    model: Path, tmp_path: Path
) -> None:
    watched = Watching()
    types = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
    wanted = {tmp_path / name: Wanted.of(name) for name in types}

    quantize_all(files_of(model), wanted, name="m", progress=watched)

    assert [task.label for task in watched.tasks] == ["quantize 5 types"]


def test_nothing_wanted_is_nothing_done(model: Path) -> None:
    assert quantize_all(files_of(model), {}, name="m", progress=Silent()) == {}


def test_two_runs_at_once_share_ggmls_tables_and_neither_frees_them_early(
    model: Path, tmp_path: Path
) -> None:
    """The first to end would pull the tables from under the other."""
    ones = {
        name: TensorImportance(np.ones((1, columns), np.float32), np.ones(1, np.int64))
        for name, columns in layer_matrices()
    }
    wanted = Wanted(file_type("IQ2_XXS"), matrix=ImportanceMatrix(ones, (), 1, 512))

    def run(number: int) -> bytes:
        out = tmp_path / f"{number}.gguf"
        quantize_all(files_of(model), {out: wanted}, name="m", threads=1, progress=Silent())
        return out.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(run, range(4)))) == 1
