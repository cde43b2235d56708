"""Variants for vLLM and transformers: taken from the cache shard by shard, or made and kept there.

A shard of the source is read once for all schemes that lack theirs. What a build had made when it
was killed is found by the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.artefacts import Artefact, check_space, find_file, keep_file
from packager.connected.cache import Cache
from packager.connected.workshop import Workshop, key_of
from packager.format.digest import Digest
from packager.progress import Silent, Task
from packager.quantize.compressed import VERSION as COMPRESSED_VERSION
from packager.quantize.compressed.pipeline import write_shards
from packager.quantize.compressed.plan import (
    CONFIG_NAME,
    PlannedShard,
    PlannedVariant,
    plan_variant,
)
from packager.quantize.compressed.schemes import Scheme
from packager.store.atomic import make_directory, write_file

_WEIGHTS = (".safetensors", ".safetensors.index.json")
_SHARD_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class MadeFile:
    """A file of a variant: its ``name`` there, and where it lies in the cache."""

    name: str
    path: Path
    digest: Digest


def replaces(path: str) -> bool:
    """Whether a variant has something else, or nothing, where the source has its ``path``.

    That is so of weights, of their index, and of the configuration.
    """
    return path == CONFIG_NAME or ("/" not in path and path.endswith(_WEIGHTS))


def make_compressed(
    workshop: Workshop, wanted: Mapping[str, Scheme]
) -> dict[str, tuple[MadeFile, ...]]:
    """What replaces the source's files in each variant, under the name that messages call it by.

    To be called by the only maker. Raises what
    :func:`packager.quantize.compressed.plan.plan_variant` and
    :func:`packager.quantize.compressed.pipeline.write_shards` raise.
    """
    plans = {name: plan_variant(workshop.sources, scheme) for name, scheme in wanted.items()}
    for name, plan in plans.items():
        for line in _notes(plan, wanted[name]):
            workshop.progress.note(f"{name}: {line}")
    shards = _Shards(workshop)
    for name, plan in plans.items():
        if shards.has_all(plan.shards):
            workshop.progress.note(f"{name}: quantized before, taken from the cache")
    shards.make_missing()
    return {
        name: (*map(shards.made, plan.shards), *_documents(workshop.cache, plan))
        for name, plan in plans.items()
    }


def shard_key(workshop: Workshop, shard: PlannedShard) -> Digest:
    """What a made shard is kept under: the digest of all that its bytes depend on.

    Those are the weights of all shards: what becomes of one expert is decided for all.
    """
    return key_of(
        {
            "what": "compressed-tensors",
            "quantize": COMPRESSED_VERSION,
            "scheme": shard.scheme.name,
            "shard": shard.name,
            "files": [
                [file.path, str(file.content)]
                for file in workshop.lock.files
                if file.path.endswith(_WEIGHTS)
            ],
        }
    )


class _Shards:
    """The made shards in the cache, and those that are still to be made."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._made: dict[Digest, MadeFile] = {}
        self._missing: dict[str, dict[Digest, PlannedShard]] = {}

    def has_all(self, shards: Sequence[PlannedShard]) -> bool:
        """Whether the cache has ``shards``, as they were made; what it lacks, is missing."""
        found = [self._find(shard) for shard in shards]
        return all(found)

    def _find(self, shard: PlannedShard) -> bool:
        key = shard_key(self._workshop, shard)
        if key in self._made:
            return True
        held = find_file(
            self._workshop.cache,
            key,
            _SHARD_SUFFIX,
            name=f"{shard.scheme.name} {shard.name}",
            progress=self._workshop.progress,
        )
        if held is None:
            self._missing.setdefault(shard.name, {})[key] = shard
        else:
            self._made[key] = _file(shard, held)
        return held is not None

    def made(self, shard: PlannedShard) -> MadeFile:
        """The file of ``shard``, which is there."""
        return self._made[shard_key(self._workshop, shard)]

    def make_missing(self) -> None:
        """Make all that is missing, in one pass over each shard of the source."""
        if not self._missing:
            return
        passes = self._missing.values()
        wanted = [shard for shards in passes for shard in shards.values()]
        check_space(self._workshop.cache.root, sum(shard.size for shard in wanted), "to quantize")
        label = ", ".join(dict.fromkeys(shard.scheme.name for shard in wanted))
        total = sum(next(iter(shards.values())).source_size for shards in passes)
        with self._workshop.progress.task(f"quantize {label}", total) as task:
            for shards in passes:
                self._made |= _make(self._workshop.cache, shards, task)


def _make(
    cache: Cache, shards: Mapping[Digest, PlannedShard], task: Task
) -> dict[Digest, MadeFile]:
    """Make ``shards`` of one shard of the source, and keep them."""
    outs = {key: cache.temporary(key, _SHARD_SUFFIX) for key in shards}
    try:
        write_shards({outs[key]: shard for key, shard in shards.items()}, task=task)
        return {key: _keep(cache, key, outs[key], shard) for key, shard in shards.items()}
    finally:
        for out in outs.values():
            out.unlink(missing_ok=True)


def _keep(cache: Cache, key: Digest, out: Path, shard: PlannedShard) -> MadeFile:
    # In the middle of a task, whose bar goes on with the next shard.
    kept = keep_file(cache, key, _SHARD_SUFFIX, out, name=shard.name, progress=Silent())
    return _file(shard, kept)


def _file(shard: PlannedShard, artefact: Artefact) -> MadeFile:
    return MadeFile(shard.name, artefact.path, artefact.digest)


def _documents(cache: Cache, plan: PlannedVariant) -> Iterator[MadeFile]:
    """The small files, kept under their own digests."""
    for name, data in plan.documents.items():
        digest = Digest.of(data)
        path = cache.derived(digest, ".json")
        make_directory(path.parent)
        write_file(path, data)
        yield MadeFile(name, path, digest)


def _notes(plan: PlannedVariant, scheme: Scheme) -> Iterator[str]:
    """What whoever uses the variant should know."""
    choice = plan.choice
    if choice.undivided:
        yield (
            f"left as they are, since groups of {scheme.group} do not divide their rows: "
            f"{_some(choice.undivided)}"
        )
    if choice.stacked:
        yield f"left as they are, since one tensor holds all experts: {_some(choice.stacked)}"
    if scheme.name == "W8A8" and any(".experts." in name for name in choice.quantized):
        yield "transformers does not load experts in W8A8, vLLM does"


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
