"""What a worker on another host does: read an order, plan as it was planned, convert one share.

An errand and its answer are JSON texts, errors too, so that whoever passes them on needs nothing
of airpack. Doing an errand twice writes the same bytes twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock

from packager import errors
from packager.errors import AirpackError, HostError
from packager.format.digest import Digest
from packager.quantize.executors.job import capacity_for, opened_shards
from packager.quantize.executors.order import (
    HOW_TO_SHARE,
    Order,
    SourceFile,
    WrittenOrder,
    maker_here,
    read_order,
)
from packager.quantize.executors.shares import SLAB_SIZE, Share, slabs_of
from packager.quantize.kernels import load_kernels
from packager.quantize.plan import Plan, make_plan, read_model
from packager.quantize.worker import Target, Worker
from packager.store.atomic import naming_refusals


@dataclass(frozen=True)
class Errand:
    """One share of an order, for the ``attempt``-th time."""

    order: WrittenOrder
    share: Share
    attempt: int = 0

    @property
    def key(self) -> str:
        """What no errand shares with one that may have another result."""
        return f"airpack-{Digest.of(self.encode().encode()).hex}"

    def encode(self) -> str:
        """As text."""
        order = {"path": str(self.order.path), "digest": self.order.digest.hex}
        return json.dumps({"order": order, "share": asdict(self.share), "attempt": self.attempt})

    @classmethod
    def decode(cls, text: str) -> Errand:
        """What :meth:`encode` wrote."""
        values = json.loads(text)
        order = WrittenOrder(Path(values["order"]["path"]), Digest(values["order"]["digest"]))
        return cls(order, Share(**values["share"]), values["attempt"])


def perform(text: str) -> str:
    """Do the errand in ``text``; returns the answer, for :func:`digests_in`."""
    try:
        digests = _convert(Errand.decode(text))
    except AirpackError as error:
        return refusal(type(error).__name__, error.message, error.hint)
    return json.dumps({"digests": digests})


def refusal(kind: str, message: str, hint: str | None) -> str:
    """The answer that makes :func:`digests_in` raise the error of the class ``kind``."""
    return json.dumps({"error": kind, "message": message, "hint": hint})


def digests_in(answer: str) -> tuple[str, ...]:
    """The sha256 of what was written to each file; raises the error that the worker met."""
    values = json.loads(answer)
    if "error" in values:
        raise _error_class(values["error"])(values["message"], hint=values["hint"])
    return tuple(values["digests"])


def _error_class(name: str) -> type[AirpackError]:
    """Our class of error that is called ``name``; of another version, one that is not here."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, AirpackError):
        return found
    return HostError


def _convert(errand: Errand) -> tuple[str, ...]:
    plans = _plans(errand.order)
    tensors = [plan.tensors for plan in plans.values()]
    slabs = slabs_of(errand.share, tensors, SLAB_SIZE)
    with ExitStack() as stack:
        stack.enter_context(_on_this_host())
        shards = stack.enter_context(opened_shards([tensors[0][errand.share.tensor]]))
        targets = [stack.enter_context(_opened_target(out)) for out in plans]
        # ggml's tables stay: a few megabytes, against making them anew for every errand.
        worker = Worker(load_kernels(), shards, targets, capacity=capacity_for(slabs))
        for slab in slabs:
            worker.convert(slab)
    return tuple(target.state.hexdigest() for target in targets)


@dataclass(frozen=True)
class _SummingTarget(Target):
    """A target that remembers the sha256 of all that was written to it."""

    state: hashlib._Hash = field(default_factory=hashlib.sha256)

    def write(self, view: memoryview, position: int) -> None:
        self.state.update(view)
        super().write(view, position)


@contextmanager
def _opened_target(path: Path) -> Iterator[_SummingTarget]:
    """The file at ``path``, whose bytes are in the hands of the filesystem once they are written.

    With O_DSYNC, Linux's client of NFS sends just these bytes, too, not all of their pages, to
    which another host may be writing (``nfs_can_extend_write``).
    """
    with naming_refusals(path):
        flags = os.O_WRONLY | os.O_DSYNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            yield _SummingTarget(descriptor)
        finally:
            os.close(descriptor)


_planning = Lock()


def _plans(order: WrittenOrder) -> Mapping[Path, Plan]:
    """The plans of ``order`` by their files, made once for all threads of this process."""
    with _planning, _on_this_host():
        return _make_plans(order)


@lru_cache(maxsize=2)
def _make_plans(written: WrittenOrder) -> Mapping[Path, Plan]:
    order = read_order(written.path, written.digest)
    _check_maker(order)
    _check_sources(order.sources)
    sources = {source.name: source.path for source in order.sources}
    model = read_model(sources)
    plans = {
        file.path: make_plan(sources, file.read_wanted(), name=order.name, model=model)
        for file in order.files
    }
    for path, plan in plans.items():
        _check_file(path, plan)
    return plans


def _check_maker(order: Order) -> None:
    here = maker_here()
    if here != order.maker:
        raise HostError(
            f"this worker has {here}; the build is by {order.maker}",
            hint="install the same versions on every worker",
        )


def _check_sources(sources: Sequence[SourceFile]) -> None:
    for source in sources:
        if SourceFile.seen(source.name, source.path) != source:
            raise HostError(
                f"{source.path}: not the file that the build sees there", hint=HOW_TO_SHARE
            )


def _check_file(path: Path, plan: Plan) -> None:
    """Refuse a file that does not begin as the host that orders has begun it."""
    with naming_refusals(path), path.open("rb") as stream:
        if stream.read(len(plan.header)) != plan.header:
            raise HostError(
                f"{path}: does not begin with the header that was planned here",
                hint=HOW_TO_SHARE,
            )


@contextmanager
def _on_this_host() -> Iterator[None]:
    """Say of a host's own refusals which host it is."""
    try:
        yield
    except HostError as error:
        here = f"worker on {platform.node()}"
        hint = error.hint or HOW_TO_SHARE
        raise HostError(f"{here}: {error.message}", hint=hint) from error
