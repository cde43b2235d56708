"""dask's workers on a shared filesystem: the bytes of one process, whatever becomes of a worker."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from support.checkpoints import files_of, layer_matrices, write_llama
from support.clusters import cluster, lone_worker, scheduler
from support.watching import Watching

from packager.errors import AirpackError, HostError, IntegrityError, UsageError
from packager.progress import Progress, Silent
from packager.quantize.executors.dask import Dask
from packager.quantize.executors.order import maker_here
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.mix import Override, Overrides
from packager.quantize.pipeline import quantize_all
from packager.quantize.types import BF16, IQ2_XXS, Q8_0, file_type
from packager.quantize.wanted import Wanted


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
            name: TensorImportance(
                random.random((1, columns), np.float32), np.array([(1 << 30) + 1])
            )
            for name, columns in layer_matrices()
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
    address: str,
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
            executor=Dask(address),
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
        two_workers.scheduler_address, files_of(model), tmp_path / "out" / "m", error, match
    )

    assert caught.type is error
    assert caught.value.hint


def test_a_cancelled_run_leaves_nothing_and_the_cluster_serves_the_next(
    two_workers: LocalCluster, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "m"
    address = two_workers.scheduler_address
    cancelling = Meddling(meddle=lambda: signal.raise_signal(signal.SIGINT))
    fails_and_leaves_nothing(
        address, files_of(model), out, KeyboardInterrupt, "^$", progress=cancelling
    )

    executor = Dask(address)
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

    fails_and_leaves_nothing(
        two_workers.scheduler_address, files_of(model), out, HostError, "not what is read here"
    )

    assert len(read) >= 3


def test_a_worker_of_another_version_is_named_with_its_version(model: Path, tmp_path: Path) -> None:
    with cluster(1) as made:
        address, out = made.scheduler_address, tmp_path / "out" / "m"
        with Client(made) as client:
            client.run(pretend_another_version)
        caught = fails_and_leaves_nothing(
            address, files_of(model), out, HostError, "has airpack 0.0.0"
        )
        assert f"worker on {platform.node()}" in caught.value.message
        assert f"the build is by {maker_here()}" in caught.value.message
        with Client(made) as client:
            client.run(pretend_there_is_none)
        caught = fails_and_leaves_nothing(
            address, files_of(model), out, HostError, "worker on .*airpack"
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
        out = tmp_path / "out" / "m"
        fails_and_leaves_nothing(
            address, files_of(model), out, HostError, "was lost on the way", progress=killing
        )


def test_a_scheduler_without_workers_is_refused_in_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.quantize.executors.dask._PATIENCE", 1)
    with cluster(0) as made:
        out = tmp_path / "out" / "m"
        fails_and_leaves_nothing(
            made.scheduler_address, files_of(model), out, HostError, "has no worker"
        )


def test_the_last_worker_that_goes_for_good_is_missed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.quantize.executors.dask._PATIENCE", 2)
    with scheduler() as (_, address), lone_worker(address) as worker:
        killing = Meddling(meddle=worker.kill)
        out = tmp_path / "out" / "m"
        fails_and_leaves_nothing(
            address, files_of(model), out, HostError, "has no worker", progress=killing
        )
