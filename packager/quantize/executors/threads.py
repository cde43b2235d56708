"""The threads of this process, each with buffers of its own: the usual executor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock

from packager.progress import Task
from packager.quantize.executors.job import Job, capacity_for, opened_shards
from packager.quantize.kernels import load_kernels
from packager.quantize.slabs import Slab, cut_into_slabs, slab_size
from packager.quantize.tables import holding_tables
from packager.quantize.worker import Target, Worker


@dataclass(frozen=True)
class Threads:
    """So many threads; as many as there are cores, if ``count`` is ``None``."""

    count: int | None = None

    def run(self, job: Job, task: Task) -> None:
        """Let the threads take slab after slab until none is left, or one of them fails."""
        count = self.count or len(os.sched_getaffinity(0))
        size = slab_size(count)
        capacity = capacity_for(cut_into_slabs(job.tensors[:1], size))
        queue = _Queue(cut_into_slabs(job.tensors, size), task)
        kernels = load_kernels()
        targets = [Target(out.descriptor) for out in job.outs]
        with ExitStack() as stack:
            stack.enter_context(holding_tables(kernels))
            shards = stack.enter_context(opened_shards(job.tensors[0]))
            workers = [Worker(kernels, shards, targets, capacity=capacity) for _ in range(count)]
            pool = stack.enter_context(ThreadPoolExecutor(count, "quantize"))
            stack.callback(queue.stop)
            for outcome in [pool.submit(queue.drain, worker) for worker in workers]:
                outcome.result()


class _Queue:
    """Slabs in the order of the output, taken by one worker at a time."""

    def __init__(self, slabs: Iterator[Slab], task: Task) -> None:
        self._slabs = slabs
        self._task = task
        self._lock = Lock()
        self._stopped = False

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped = True

    def drain(self, worker: Worker) -> None:
        """Give ``worker`` slabs while there are any; an error stops all workers."""
        try:
            while (slab := self._next()) is not None:
                worker.convert(slab)
                with self._lock:
                    self._task.advance(slab.source_size)
        except BaseException:
            self.stop()
            raise

    def _next(self) -> Slab | None:
        with self._lock:
            return None if self._stopped else next(self._slabs, None)
