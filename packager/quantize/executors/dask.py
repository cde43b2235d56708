"""Machines that share a filesystem, under a scheduler of dask.distributed.

A worker that is lost on the way costs what it had begun: dask gives that to another.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, SimpleQueue

from distributed import Client, Future, KilledWorker
from distributed.comm import get_address_host_port
from distributed.security import Security

from packager.errors import AirpackError, HostError, UsageError
from packager.progress import Task
from packager.quantize.executors.errand import Errand, digests_in
from packager.quantize.executors.job import Job
from packager.quantize.executors.order import HOW_TO_SHARE, WrittenOrder, written_order
from packager.quantize.executors.shares import SLAB_SIZE, cut_into_shares, slabs_of, written_digests

_IN_FLIGHT = 1024  # errands: what many machines do in seconds, and a few megabytes here
_ATTEMPTS = 3
_CONNECTING = 10  # seconds
_PATIENCE = 60  # seconds without any worker
_TALKATIVE = ("distributed", "distributed.client", "asyncio")
_LOST = (OSError, asyncio.TimeoutError, CancelledError, asyncio.CancelledError)


@dataclass(frozen=True)
class Dask:
    """The workers of the scheduler at ``address``, as ``tcp://HOST:PORT``."""

    address: str

    def check(self) -> None:
        """Raise ``UsageError`` for what is no address, ``HostError`` where no scheduler answers."""
        try:
            host, port = get_address_host_port(self.address)
            host.encode("idna")  # dask takes its time to find out
            is_address = 0 < port < 1 << 16
        except (ValueError, NotImplementedError):  # the latter of transports without ports
            is_address = False
        if not is_address:
            raise UsageError(
                f"{self.address!a} is no address of a scheduler",
                hint="--executor dask:tcp://HOST:8786",
            )
        if self.address.startswith("tls:") and Security().tls_ca_file is None:
            raise UsageError(
                f"{self.address}: dask has no certificates for TLS here",
                hint="name them in ~/.config/dask/distributed.yaml, distributed.comm.tls",
            )
        with self._connected():
            pass

    def run(self, job: Job, task: Task) -> None:
        """Have the workers do all errands, in any order, and read back what they wrote."""
        for out in job.outs:
            # Nothing of what was written here may reach the disk after what others write.
            os.fsync(out.descriptor)
        with written_order(job) as order, self._connected() as client:
            self._wait_for_workers(client)
            _Round(self.address, client, job, order, task).finish()

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        for name in _TALKATIVE:
            # They would print tracebacks of what is said here in one sentence.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            client = Client(self.address, timeout=_CONNECTING, set_as_default=False, name="airpack")
        except _LOST:
            raise HostError(
                f"no dask scheduler answers at {self.address}", hint="dask scheduler --port 8786"
            ) from None
        try:
            yield client
        finally:
            client.close(timeout=_CONNECTING)

    def _wait_for_workers(self, client: Client) -> None:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except _LOST:
            raise _no_worker(self.address) from None


def _no_worker(address: str) -> HostError:
    return HostError(
        f"the dask scheduler at {address} has no worker",
        hint=f"on each machine: dask worker {address}",
    )


class _Round:
    """All errands of one order; no more than ``_IN_FLIGHT`` are known to the scheduler at once."""

    def __init__(
        self, address: str, client: Client, job: Job, order: WrittenOrder, task: Task
    ) -> None:
        self._address = address
        self._client = client
        self._job = job
        self._order = order
        self._task = task
        self._sent: dict[str, tuple[Errand, Future]] = {}
        self._ended: SimpleQueue[str] = SimpleQueue()

    def finish(self) -> None:
        """Send errands and check what comes back, until nothing is left; else cancel the rest."""
        shares = cut_into_shares(self._job.tensors, SLAB_SIZE)
        try:
            for share in islice(shares, _IN_FLIGHT):
                self._send(Errand(self._order, share))
            while self._sent:
                errand, future = self._sent.pop(self._next_ended())
                self._check_written(errand, future)
                for share in islice(shares, 1):
                    self._send(Errand(self._order, share))
        finally:
            with suppress(*_LOST):
                self._client.cancel([future for _, future in self._sent.values()], force=True)

    def _send(self, errand: Errand) -> None:
        future = self._client.submit(_performer(), errand.encode(), key=errand.key)
        self._sent[errand.key] = (errand, future)
        future.add_done_callback(lambda ended: self._ended.put(ended.key))

    def _next_ended(self) -> str:
        while True:
            try:
                return self._ended.get(timeout=_PATIENCE)
            except Empty:
                self._check_workers()

    def _check_workers(self) -> None:
        """Dask itself would wait for workers for ever."""
        try:
            workers = self._client.nthreads()
        except _LOST:
            raise self._lost() from None
        if not workers:
            raise _no_worker(self._address)

    def _digests(self, future: Future) -> tuple[str, ...]:
        """What the worker says that it has written; raises the error that it met."""
        while True:
            try:
                # An answer that is lost with its worker is made again first.
                return digests_in(future.result(timeout=_PATIENCE))
            except asyncio.TimeoutError:
                self._check_workers()
            except _LOST:
                raise self._lost() from None
            except KilledWorker:
                raise HostError(
                    f"dask at {self._address}: several workers in a row died of the same part",
                    hint="see their logs; most often they lack memory: fewer threads to a worker",
                ) from None
            except AirpackError:
                raise
            except Exception as error:  # whatever code another host has, or lacks, may raise
                raise HostError(
                    f"a worker of dask at {self._address} failed: {type(error).__name__}: {error}",
                    hint="see its log; on every worker: pip install 'airpack[build,cluster]'",
                ) from error

    def _lost(self) -> HostError:
        return HostError(
            f"the dask scheduler at {self._address} was lost on the way",
            hint="start it again, then run the same command",
        )

    def _check_written(self, errand: Errand, future: Future) -> None:
        """Read back what was written, and have it done again where it is something else."""
        slabs = slabs_of(errand.share, self._job.tensors, SLAB_SIZE)
        if self._digests(future) == written_digests(slabs, self._job):
            self._task.advance(sum(slab.source_size for slab in slabs))
        elif errand.attempt + 1 < _ATTEMPTS:
            self._send(replace(errand, attempt=errand.attempt + 1))
        else:
            raise HostError(
                f"{self._job.outs[0].path}: what a worker wrote is not what is read here",
                hint=HOW_TO_SHARE,
            )


def _performer() -> Callable[[str], str]:
    """What workers call. Its code travels, so that only workers need airpack, not the scheduler,
    and so that one that lacks it can say so."""

    def perform_there(text: str) -> str:
        import json
        import platform

        try:
            from packager.quantize.executors.errand import perform

            return perform(text)
        except ImportError as error:
            return json.dumps(
                {
                    "error": "HostError",
                    "message": f"worker on {platform.node()}: {error}",
                    "hint": "on every worker: pip install 'airpack[build,cluster]'",
                }
            )

    return perform_there
