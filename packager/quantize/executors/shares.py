"""Cutting a job into shares that travel: a few numbers that name consecutive slabs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from packager.errors import TruncatedError
from packager.quantize.executors.job import Job, Reserved
from packager.quantize.plan import PlannedTensor
from packager.quantize.slabs import Slab, cut_into_slabs
from packager.store.atomic import naming_refusals

SLAB_SIZE = 2 << 20
_SLABS = 16  # to a share: some tenths of a second of a core
_READ = 1 << 20


@dataclass(frozen=True)
class Share:
    """The slabs ``first`` to ``end`` (which is none of them) of the ``tensor``-th tensor."""

    tensor: int
    first: int
    end: int


def cut_into_shares(files: Sequence[Sequence[PlannedTensor]], size: int) -> Iterator[Share]:
    """All shares of ``files``, which are cut into slabs of about ``size`` bytes."""
    for number, tensor in enumerate(files[0]):
        count = sum(1 for _ in cut_into_slabs([[tensor]], size))
        for first in range(0, count, _SLABS):
            yield Share(number, first, min(first + _SLABS, count))


def slabs_of(share: Share, files: Sequence[Sequence[PlannedTensor]], size: int) -> tuple[Slab, ...]:
    """The slabs of one share, of ``files`` cut as in :func:`cut_into_shares`."""
    tensors = [[tensors[share.tensor]] for tensors in files]
    return tuple(islice(cut_into_slabs(tensors, size), share.first, share.end))


def written_digests(slabs: Sequence[Slab], job: Job) -> tuple[str, ...]:
    """The sha256, for each file of ``job``, of the bytes that lie where ``slabs`` go.

    Raises ``HostError``, ``IntegrityError`` for a device error, ``TruncatedError``.
    """
    return tuple(_digest(slabs, number, out) for number, out in enumerate(job.outs))


def _digest(slabs: Sequence[Slab], number: int, out: Reserved) -> str:
    state = hashlib.sha256()
    for slab in slabs:
        output = slab.outputs[number]
        end = output.begin + output.type.row_size(slab.elements)
        # A network filesystem may hold pages here from before another host wrote them.
        os.posix_fadvise(out.descriptor, output.begin, end - output.begin, os.POSIX_FADV_DONTNEED)
        for begin in range(output.begin, end, _READ):
            size = min(_READ, end - begin)
            with naming_refusals(out.path):
                data = os.pread(out.descriptor, size, begin)
            if len(data) < size:
                raise TruncatedError(f"{out.path}: became shorter while it was written")
            state.update(data)
    return state.hexdigest()
