"""One pass from safetensors to GGUF: plan, then stream slab by slab through reused buffers.

However many files are wanted of a model, its weights are read and widened once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packager.progress import Progress
from packager.quantize.executors.job import Executor, Job, Reserved
from packager.quantize.executors.threads import Threads
from packager.quantize.kernels import load_kernels
from packager.quantize.plan import Fallback, Plan, make_plan, read_model
from packager.quantize.source import check_unchanged, stamps_of
from packager.quantize.wanted import Wanted
from packager.quantize.worker import write_all
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    naming_refusals,
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
    executor: Executor | None = None,
    progress: Progress,
) -> dict[Path, QuantizedModel]:
    """Write the model in ``files`` as each of the GGUF files that are ``wanted``, in one pass.

    ``files`` maps names in the repository to local paths, ``name`` becomes ``general.name``. The
    weights are converted by ``executor``, or else by so many ``threads``. The bytes of a file
    depend on the source and on what it shall be alone, not on its company nor on who converts it.
    Each file appears at the end, whole, or not at all. Raises ``UsageError`` for what cannot be
    converted, ``IntegrityError`` (``MalformedError`` among them) for weights that are broken,
    infinite or not a number, and for a source that changes meanwhile, ``UnsafeContentError`` for a
    file that is not what its name says, ``NoSpaceError``, ``HostError``, ``EngineError``.
    """
    if not wanted:
        return {}
    stamps = stamps_of(files.values())
    model = read_model(files)
    plans = {out: make_plan(files, file, name=name, model=model) for out, file in wanted.items()}
    for note in dict.fromkeys(note for plan in plans.values() for note in plan.notes):
        progress.note(note)
    kernels = load_kernels().compiled
    if not kernels.is_complete:
        progress.note(f"quantization kernels are {kernels.summary}")
    with ExitStack() as stack:
        outs = [stack.enter_context(_replacing(out, plan.size)) for out, plan in plans.items()]
        for out, plan in zip(outs, plans.values(), strict=True):
            _write_ready(plan, out.descriptor)
        job = Job(files, name, tuple(wanted.values()), tuple(plans.values()), tuple(outs))
        label = _label([file.kind.name for file in wanted.values()])
        source_size = next(iter(plans.values())).source_size
        with progress.task(label, source_size) as task:
            (executor or Threads(threads)).run(job, task)
        check_unchanged(stamps)
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


@contextmanager
def _replacing(path: Path, size: int) -> Iterator[Reserved]:
    """``size`` reserved bytes that become ``path`` when the block succeeds."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    with naming_refusals(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            # Reserving first finds a full disk before an hour of work, not after it.
            os.posix_fallocate(descriptor, 0, size)
            yield Reserved(temporary, descriptor)
            os.fsync(descriptor)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        fsync_directory(path.parent)
