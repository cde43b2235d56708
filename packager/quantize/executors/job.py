"""What an executor is given to do, and what one is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packager.progress import Task
from packager.quantize.plan import Plan, PlannedTensor
from packager.quantize.slabs import Slab
from packager.quantize.wanted import Wanted
from packager.store.atomic import open_regular


@dataclass(frozen=True)
class Reserved:
    """A file before it has its name: it lies at ``path``, open for reading and writing."""

    path: Path
    descriptor: int


@dataclass(frozen=True, eq=False)
class Job:
    """Files to be filled: the i-th of ``outs`` is that of ``plans``, made of what is ``wanted``.

    ``files`` and ``name`` are what the plans were made of. All but what comes from the source's
    weights is written already.
    """

    files: Mapping[str, Path]
    name: str
    wanted: tuple[Wanted, ...]
    plans: tuple[Plan, ...]
    outs: tuple[Reserved, ...]

    @property
    def tensors(self) -> list[Sequence[PlannedTensor]]:
        """Those of each file."""
        return [plan.tensors for plan in self.plans]


class Executor(Protocol):
    """Fills files."""

    def run(self, job: Job, task: Task) -> None:
        """Convert all slabs of ``job``, telling ``task`` the bytes of the source that are done.

        Raises what :meth:`packager.quantize.worker.Worker.convert` raises, ``HostError``, and
        ``EngineError``.
        """


@contextmanager
def opened_shards(tensors: Iterable[PlannedTensor]) -> Iterator[Mapping[Path, int]]:
    """Descriptors, by path, of the shards that ``tensors`` come from."""
    paths = {s.path for tensor in tensors for piece in tensor.pieces for s in piece.tensors}
    with ExitStack() as stack:
        yield {path: stack.enter_context(open_regular(path.resolve())) for path in paths}


def capacity_for(slabs: Iterable[Slab]) -> int:
    """The elements for which a worker needs room, to convert any of ``slabs``."""
    return max(slab.elements * slab.piece.step for slab in slabs)
