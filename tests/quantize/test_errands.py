"""One errand of a shared quantizing: what a worker does, refuses, and says of itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import files_of, write_llama

from packager.errors import HostError
from packager.format.safetensors_header import TensorEntry
from packager.quantize.executors.errand import Errand, digests_in, perform
from packager.quantize.executors.job import Job, Reserved
from packager.quantize.executors.order import WrittenOrder, written_order
from packager.quantize.executors.shares import SLAB_SIZE, Share, cut_into_shares, slabs_of
from packager.quantize.gguf_writer import TensorInfo
from packager.quantize.plan import PlannedTensor, make_plan
from packager.quantize.slabs import cut_into_slabs
from packager.quantize.source import SourceTensor
from packager.quantize.sourcing import Piece
from packager.quantize.types import BF16
from packager.quantize.wanted import Wanted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model"))


@contextmanager
def order_of(model: Path, out: Path) -> Iterator[tuple[WrittenOrder, Path]]:
    """An order of one F16 file, and that file, which begins with its header."""
    wanted = Wanted.of("F16")
    plan = make_plan(files_of(model), wanted, name="m")
    out.write_bytes(plan.header.ljust(plan.size, b"\0"))
    with out.open("r+b") as stream:
        job = Job(files_of(model), "m", (wanted,), (plan,), (Reserved(out, stream.fileno()),))
        with written_order(job) as order:
            yield order, out


def meets(order: WrittenOrder, match: str) -> None:
    """Whoever does an errand of ``order`` refuses, names itself, and says how to share files."""
    with pytest.raises(HostError, match=match) as caught:
        digests_in(perform(Errand(order, Share(0, 0, 1)).encode()))
    assert caught.value.message.startswith(f"worker on {platform.node()}: ")
    assert "AIRPACK_CACHE" in str(caught.value.hint)


def test_an_errand_done_twice_writes_the_same_bytes_twice(model: Path, tmp_path: Path) -> None:
    with order_of(model, tmp_path / "m") as (order, out):
        text = Errand(order, Share(0, 0, 1)).encode()
        first, bytes_then = digests_in(perform(text)), out.read_bytes()
        assert digests_in(perform(text)) == first
        assert out.read_bytes() == bytes_then


def test_a_worker_that_does_not_see_the_order_says_so(model: Path, tmp_path: Path) -> None:
    with order_of(model, tmp_path / "m") as (order, _):
        pass
    meets(order, "no such file or directory")


def test_a_worker_that_sees_another_source_says_so(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    with order_of(model, tmp_path / "m") as (order, _):
        os.utime(model / "model.safetensors", (1, 1))
        meets(order, r"model\.safetensors: not the file that the build sees there")


def test_a_worker_that_sees_another_output_says_so(model: Path, tmp_path: Path) -> None:
    with order_of(model, tmp_path / "m") as (order, out):
        out.write_bytes(b"GGUF of somebody else")
        meets(order, "does not begin with the header")


def test_an_output_that_a_worker_must_not_write_is_named(model: Path, tmp_path: Path) -> None:
    with order_of(model, tmp_path / "m") as (order, out):
        out.rename(tmp_path / "moved")
        out.symlink_to(tmp_path / "moved")
        meets(order, "too many levels of symbolic links")


def test_no_two_orders_have_the_same_key_though_all_is_the_same(
    model: Path, tmp_path: Path
) -> None:
    """What dask remembers of another run was written into files that are gone."""
    with order_of(model, tmp_path / "m") as (first, _):
        key = Errand(first, Share(0, 0, 1)).key
    with order_of(model, tmp_path / "m") as (second, _):
        assert Errand(second, Share(0, 0, 1)).key != key
        assert Errand(first, Share(0, 0, 1)).key == key
        assert Errand(first, Share(0, 0, 1), attempt=1).key != key


@given(
    rows=st.lists(st.integers(1, 1000), min_size=1, max_size=5),
    columns=st.integers(1, 64),
    size=st.sampled_from([1 << 8, 1 << 12, SLAB_SIZE]),
)
def test_shares_together_are_all_slabs_in_their_order(
    rows: list[int], columns: int, size: int
) -> None:
    files = [planned_tensors(rows, columns)] * 2

    shares = list(cut_into_shares(files, size))

    together = [slab for share in shares for slab in slabs_of(share, files, size)]
    expected = list(cut_into_slabs(files, size))
    assert [(s.tensor, s.source_begin, s.rows) for s in together] == [
        (s.tensor, s.source_begin, s.rows) for s in expected
    ]
    assert max(share.end - share.first for share in shares) <= 16


def planned_tensors(rows: list[int], columns: int) -> list[PlannedTensor]:
    tensors = []
    position = 0
    for number, count in enumerate(rows):
        shape = (count, columns)
        entry = TensorEntry(str(number), "BF16", shape, position, 2 * count * columns)
        source = SourceTensor(entry, "shard", Path("shard"))
        info = TensorInfo(str(number), BF16, shape, position)
        tensors.append(PlannedTensor(info, position, (Piece(source, count),)))
        position += 2 * count * columns
    return tensors
