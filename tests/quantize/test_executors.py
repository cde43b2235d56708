"""Machines that share a filesystem: the bytes of one process, whatever becomes of a worker."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import files_of, write_llama
from support.watching import Watching

from packager.errors import AirpackError, HostError, IntegrityError, UsageError
from packager.format.safetensors_header import TensorEntry
from packager.progress import Progress, Silent
from packager.quantize.executors.choice import find_executor
from packager.quantize.executors.dask import Dask
from packager.quantize.executors.errand import Errand, digests_in, perform
from packager.quantize.executors.job import Job, Reserved
from packager.quantize.executors.order import WrittenOrder, maker_here, written_order
from packager.quantize.executors.shares import SLAB_SIZE, Share, cut_into_shares, slabs_of
from packager.quantize.gguf_writer import TensorInfo
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.mix import Override, Overrides
from packager.quantize.pipeline import quantize_all
from packager.quantize.plan import PlannedTensor, make_plan
from packager.quantize.slabs import cut_into_slabs
from packager.quantize.source import SourceTensor
from packager.quantize.sourcing import Piece
from packager.quantize.types import BF16, IQ2_XXS, Q8_0, file_type
from packager.quantize.wanted import Wanted


@contextmanager
def cluster(workers: int = 2) -> Iterator[LocalCluster]:
    """Workers that are processes, under nannies that start them again."""
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
    ) as made:
        yield made


@pytest.fixture(scope="module")
def two_workers() -> Iterator[LocalCluster]:
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model"))


def several(folder: Path) -> dict[Path, Wanted]:
    """Plain floats, blocks, a mixture with overrides, and a type that needs a matrix."""
    folder.mkdir()
    random = np.random.default_rng(5)
    matrix = ImportanceMatrix(
        {
            f"blk.{layer}.{part}.weight": TensorImportance(
                random.random((1, columns), np.float32), np.array([(1 << 30) + 1])
            )
            for layer in range(3)
            for part, columns in PARTS
        },
        ("a text",),
        3,
        512,
    )
    overrides = Overrides((Override("blk.1.*", Q8_0),), output=BF16, token_embedding=Q8_0)
    return {
        folder / "f16": Wanted.of("F16"),
        folder / "q8_0": Wanted.of("Q8_0"),
        folder / "q4_k_m": Wanted(file_type("Q4_K_M"), overrides),
        folder / "q2_k_s": Wanted(
            file_type("Q2_K_S"),
            Overrides((Override("blk.0.attn_k.weight", IQ2_XXS),)),
            matrix=matrix,
            matrix_name="a matrix",
        ),
    }


PARTS = (
    *((part, 256) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up")),
    ("ffn_down", 512),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def by_one_process(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone") / "out"
    quantize_all(files_of(model), several(folder), name="m", progress=Silent())
    return contents(folder)


def test_workers_write_the_bytes_of_one_process_and_every_byte_is_counted(
    two_workers: LocalCluster, model: Path, by_one_process: dict[str, bytes], tmp_path: Path
) -> None:
    watched = Watching()
    wanted = several(tmp_path / "out")

    quantize_all(
        files_of(model),
        wanted,
        name="m",
        executor=Dask(two_workers.scheduler_address),
        progress=watched,
    )

    assert contents(tmp_path / "out") == by_one_process
    assert [task.done for task in watched.tasks] == [task.total for task in watched.tasks]


@dataclass
class Meddling(Watching):
    """Does something once a first part is done."""

    meddle: Callable[[], object] = lambda: None
    done: int = 0
    total: int = 0

    @contextmanager
    def task(self, _: str, total: int, **__: object) -> Iterator[Meddling]:
        self.total = total
        yield self

    def advance(self, amount: int) -> None:
        if not self.done:
            self.meddle()
        self.done += amount


def test_a_worker_that_is_killed_on_the_way_changes_no_byte(
    model: Path, by_one_process: dict[str, bytes], tmp_path: Path
) -> None:
    with cluster() as made:
        with Client(made) as client:
            pids = client.run(os.getpid)
        killing = Meddling(meddle=lambda: os.kill(next(iter(pids.values())), signal.SIGKILL))
        quantize_all(
            files_of(model),
            several(tmp_path / "out"),
            name="m",
            executor=Dask(made.scheduler_address),
            progress=killing,
        )
        with Client(made) as client:
            client.wait_for_workers(2, timeout=30)
            assert set(client.run(os.getpid).values()) != set(pids.values())

    assert contents(tmp_path / "out") == by_one_process
    assert killing.done == killing.total


def fails_and_leaves_nothing(
    made: LocalCluster,
    files: dict[str, Path],
    out: Path,
    error: type[BaseException],
    match: str,
    progress: Progress | None = None,
) -> pytest.ExceptionInfo[BaseException]:
    out.parent.mkdir(exist_ok=True)
    with pytest.raises(error, match=match) as caught:
        quantize_all(
            files,
            {out: Wanted.of("F16")},
            name="m",
            executor=Dask(made.scheduler_address),
            progress=progress or Silent(),
        )
    assert list(out.parent.iterdir()) == []
    return caught


@pytest.mark.parametrize(
    ("bits", "error", "match"),
    [
        (0x7FC0, IntegrityError, r"model\.embed_tokens\.weight holds infinity or not-a-number"),
        (0x4800, UsageError, "beyond the range of F16"),
    ],
)
def test_what_a_worker_refuses_is_the_same_error_with_its_hint(
    two_workers: LocalCluster, tmp_path: Path, bits: int, error: type[AirpackError], match: str
) -> None:
    model = write_llama(tmp_path / "model")
    with (model / "model.safetensors").open("r+b") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
        stream.seek(begin + 2 * 777)  # of the embeddings, which are first
        stream.write(bits.to_bytes(2, "little"))

    caught = fails_and_leaves_nothing(
        two_workers, files_of(model), tmp_path / "out" / "m", error, match
    )

    assert caught.type is error
    assert caught.value.hint


def test_a_cancelled_run_leaves_nothing_and_the_cluster_serves_the_next(
    two_workers: LocalCluster, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "m"
    cancelling = Meddling(meddle=lambda: signal.raise_signal(signal.SIGINT))
    fails_and_leaves_nothing(
        two_workers, files_of(model), out, KeyboardInterrupt, "^$", progress=cancelling
    )

    executor = Dask(two_workers.scheduler_address)
    wanted = {out: Wanted.of("F16")}
    quantize_all(files_of(model), wanted, name="m", executor=executor, progress=Silent())

    assert list(out.parent.iterdir()) == [out]


def test_what_a_worker_did_not_write_is_done_again_and_then_refused(
    two_workers: LocalCluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def other_bytes(*given: object) -> tuple[str, ...]:
        read.append(given)
        return ("0" * 64,)

    monkeypatch.setattr("packager.quantize.executors.dask.written_digests", other_bytes)
    out = tmp_path / "out" / "m"

    fails_and_leaves_nothing(two_workers, files_of(model), out, HostError, "not what is read here")

    assert len(read) >= 3


def test_a_worker_of_another_version_is_named_with_its_version(model: Path, tmp_path: Path) -> None:
    with cluster(1) as made:
        with Client(made) as client:
            client.run(pretend_another_version)
        caught = fails_and_leaves_nothing(
            made, files_of(model), tmp_path / "out" / "m", HostError, "has airpack 0.0.0"
        )
        assert f"worker on {platform.node()}" in caught.value.message
        assert f"the build is by {maker_here()}" in caught.value.message
        with Client(made) as client:
            client.run(pretend_there_is_none)
        caught = fails_and_leaves_nothing(
            made, files_of(model), tmp_path / "out" / "m", HostError, "worker on .*airpack"
        )
    assert "pip install 'airpack[build,cluster]'" in str(caught.value.hint)


def pretend_another_version() -> None:
    from packager.quantize.executors import errand

    errand.maker_here = lambda: "airpack 0.0.0"


def pretend_there_is_none() -> None:
    def none_there() -> str:
        raise PackageNotFoundError("airpack")

    from packager.quantize.executors import errand

    errand.maker_here = none_there


def test_a_scheduler_that_is_lost_on_the_way_is_named(model: Path, tmp_path: Path) -> None:
    with scheduler() as (process, address), lone_worker(address):
        killing = Meddling(meddle=process.kill)
        with pytest.raises(HostError, match="was lost on the way"):
            quantize_all(
                files_of(model),
                {tmp_path / "m": Wanted.of("F16")},
                name="m",
                executor=Dask(address),
                progress=killing,
            )
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_workers_is_refused_in_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.quantize.executors.dask._PATIENCE", 1)
    with cluster(0) as made:
        fails_and_leaves_nothing(
            made, files_of(model), tmp_path / "out" / "m", HostError, "has no worker"
        )


def test_the_last_worker_that_goes_for_good_is_missed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.quantize.executors.dask._PATIENCE", 2)
    with scheduler() as (_, address), lone_worker(address) as worker:
        killing = Meddling(meddle=worker.kill)
        with pytest.raises(HostError, match="has no worker"):
            quantize_all(
                files_of(model),
                {tmp_path / "m": Wanted.of("F16")},
                name="m",
                executor=Dask(address),
                progress=killing,
            )
    assert list(tmp_path.iterdir()) == []


@contextmanager
def scheduler() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A scheduler in a process where airpack cannot be imported."""
    source = """
import sys
sys.modules["packager"] = None
from distributed.cli.dask_scheduler import main
main(["--host", "127.0.0.1", "--port", "0", "--no-dashboard"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            said = next(line for line in process.stderr if "Scheduler at:" in line)
            yield process, said.split()[-1]
        finally:
            process.kill()


@contextmanager
def lone_worker(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that nobody starts again."""
    words = ["-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL) as process:
        try:
            with Client(address) as client:
                client.wait_for_workers(1, timeout=30)
            yield process
        finally:
            process.kill()


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


@settings(deadline=None)
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


@pytest.mark.parametrize(
    "text",
    [
        "dask",
        "dask:",
        "spark:tcp://localhost:1",
        "dask:nowhere",
        "dask:tcp://localhost:port",
        "dask:tcp://localhost:0",
        "dask:tcp://localhost:65536",
        "dask:pigeon://localhost:8786",
        "dask:inproc://10.0.0.1/1/1",
        "dask:[::1",
    ],
)
def test_what_is_no_executor_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_executor(text)
    assert caught.value.hint == "--executor dask:tcp://HOST:8786"


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HostError) as caught:
        find_executor("dask:tcp://localhost:8786")
    assert caught.value.hint == "pip install 'airpack[cluster]'"
