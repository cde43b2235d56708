"""One pass from safetensors to GGUF: plan, then stream slab by slab through reused buffers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from packager.progress import Progress, Task
from packager.quantize.kernels import load_kernels
from packager.quantize.plan import Fallback, Plan, make_plan
from packager.quantize.slabs import Slab, cut_into_slabs, slab_size
from packager.quantize.worker import Worker, write_all
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    naming_refusals,
    open_regular,
)


class QuantizedTensor(NamedTuple):
    """One tensor written. ``shape`` is (rows, columns) or (n,); ``size`` is in bytes."""

    name: str
    type: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class QuantizedModel:
    """What was written: ``size`` bytes, ``parameters`` weights.

    ``fallbacks`` are the tensors whose rows did not fit the type that their place called for.
    """

    size: int
    tensors: tuple[QuantizedTensor, ...]
    fallbacks: tuple[Fallback, ...]
    parameters: int


def quantize(
    files: Mapping[str, Path],
    type_name: str,
    out: Path,
    *,
    name: str,
    threads: int | None = None,
    progress: Progress,
) -> QuantizedModel:
    """Write the model in ``files`` to ``out`` as a GGUF file of type ``type_name``.

    ``files`` maps names in the repository to local paths, ``name`` becomes ``general.name``.
    The bytes depend on these alone. ``out`` appears at the end, whole, or not at all. Raises
    ``UsageError`` for what cannot be converted, ``IntegrityError`` (``MalformedError`` among
    them) for weights that are broken, infinite or not a number, ``UnsafeContentError`` for a
    file that is not what its name says, ``NoSpaceError``, ``HostError``, ``EngineError``.
    """
    plan = make_plan(files, type_name, name=name)
    for note in plan.notes:
        progress.note(note)
    with _replacing(out, plan.size) as target:
        write_all(target, memoryview(plan.header), 0)
        for tensor in plan.tensors:
            write_all(target, memoryview(tensor.data), tensor.position)
        with progress.task(f"quantize {type_name}", plan.source_size) as task:
            _stream(plan, target, threads or len(os.sched_getaffinity(0)), task)
    return QuantizedModel(
        size=plan.size,
        tensors=tuple(
            QuantizedTensor(
                tensor.info.name, tensor.info.type.name, tensor.info.shape, tensor.info.size
            )
            for tensor in plan.tensors
        ),
        fallbacks=plan.fallbacks,
        parameters=plan.parameters,
    )


def _stream(plan: Plan, target: int, threads: int, task: Task) -> None:
    """Let ``threads`` workers take slab after slab until none is left, or one of them fails."""
    size = slab_size(threads)
    largest = max(slab.elements for slab in cut_into_slabs(plan.tensors, size))
    queue = _Queue(cut_into_slabs(plan.tensors, size), task)
    with ExitStack() as stack:
        shards = {
            path: stack.enter_context(open_regular(path.resolve()))
            for path in {tensor.source.path for tensor in plan.tensors if tensor.source}
        }
        workers = [Worker(load_kernels(), shards, target, capacity=largest) for _ in range(threads)]
        pool = stack.enter_context(ThreadPoolExecutor(threads, "quantize"))
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


@contextmanager
def _replacing(path: Path, size: int) -> Iterator[int]:
    """A descriptor of ``size`` reserved bytes that become ``path`` when the block succeeds."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    with naming_refusals(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            # Reserving first finds a full disk before an hour of work, not after it.
            os.posix_fallocate(descriptor, 0, size)
            yield descriptor
            os.fsync(descriptor)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        fsync_directory(path.parent)
