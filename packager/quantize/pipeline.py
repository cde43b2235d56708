"""One pass from safetensors to GGUF: plan, then stream slab by slab through reused buffers.

However many files are wanted of a model, its weights are read and widened once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
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
from packager.quantize.tables import holding_tables
from packager.quantize.wanted import Wanted
from packager.quantize.worker import Target, Worker, write_all
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

    As :func:`quantize_all`, for one file without an importance matrix.
    """
    wanted = {out: Wanted.of(type_name)}
    return quantize_all(files, wanted, name=name, threads=threads, progress=progress)[out]


def quantize_all(
    files: Mapping[str, Path],
    wanted: Mapping[Path, Wanted],
    *,
    name: str,
    threads: int | None = None,
    progress: Progress,
) -> dict[Path, QuantizedModel]:
    """Write the model in ``files`` as each of the GGUF files that are ``wanted``, in one pass.

    ``files`` maps names in the repository to local paths, ``name`` becomes ``general.name``.
    The bytes of a file depend on these and on what it shall be alone, not on its company. Each
    file appears at the end, whole, or not at all. Raises ``UsageError`` for what cannot be
    converted, ``IntegrityError`` (``MalformedError`` among them) for weights that are broken,
    infinite or not a number, ``UnsafeContentError`` for a file that is not what its name says,
    ``NoSpaceError``, ``HostError``, ``EngineError``.
    """
    if not wanted:
        return {}
    plans = {out: make_plan(files, file, name=name) for out, file in wanted.items()}
    for note in dict.fromkeys(note for plan in plans.values() for note in plan.notes):
        progress.note(note)
    kernels = load_kernels().compiled
    if not kernels.is_complete:
        progress.note(f"quantization kernels are {kernels.summary}")
    with ExitStack() as stack:
        targets = [stack.enter_context(_replacing(out, plan.size)) for out, plan in plans.items()]
        for target, plan in zip(targets, plans.values(), strict=True):
            _write_ready(plan, target)
        label = _label([file.kind.name for file in wanted.values()])
        source_size = next(iter(plans.values())).source_size
        with progress.task(label, source_size) as task:
            _stream(list(plans.values()), targets, threads or len(os.sched_getaffinity(0)), task)
    return {out: _report(plan) for out, plan in plans.items()}


def _label(types: Sequence[str]) -> str:
    """What a progress bar has room for."""
    return f"quantize {', '.join(types)}" if len(types) < 5 else f"quantize {len(types)} types"


def _write_ready(plan: Plan, target: int) -> None:
    """Write what needs no source."""
    write_all(target, memoryview(plan.header), 0)
    for tensor in plan.tensors:
        write_all(target, memoryview(tensor.data), tensor.position)


def _report(plan: Plan) -> QuantizedModel:
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


def _stream(plans: Sequence[Plan], targets: Sequence[int], threads: int, task: Task) -> None:
    """Let ``threads`` workers take slab after slab until none is left, or one of them fails."""
    size = slab_size(threads)
    tensors = [plan.tensors for plan in plans]
    largest = max(slab.elements * slab.piece.step for slab in cut_into_slabs(tensors[:1], size))
    queue = _Queue(cut_into_slabs(tensors, size), task)
    kernels = load_kernels()
    with ExitStack() as stack:
        stack.enter_context(holding_tables(kernels))
        shards = {
            path: stack.enter_context(open_regular(path.resolve()))
            for path in {
                source.path
                for tensor in tensors[0]
                for piece in tensor.pieces
                for source in piece.tensors
            }
        }
        files = [Target(descriptor) for descriptor in targets]
        workers = [Worker(kernels, shards, files, capacity=largest) for _ in range(threads)]
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
