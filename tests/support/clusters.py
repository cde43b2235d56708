"""dask on this host: clusters of processes, and a scheduler that knows nothing of airpack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster


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
