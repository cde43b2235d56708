"""Which of the GGUF models that a source publishes a first recipe names, and under what names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from packager.connected.variants.published import is_gguf, model_files
from packager.format.gguf_split import ShardName
from packager.format.relpath import has_unprintable

# As publishers end the names of their files: model-Q4_K_M, model.IQ4_XS, UD-Q4_K_XL, bf16.
_TYPE = re.compile(
    r"(?:.*[-._ ])?((?:I|T)?Q[0-9](?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4(?:_MOE)?)\Z", re.IGNORECASE
)
_PREFERRED = ("q4_k_m", "q8_0")
# What lies beside models and is none: projectors for images, importance matrices.
_NOT_MODELS = re.compile(r"mmproj|imatrix", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """A published model: the ``type`` that its name ends in, lower case, and its first file."""

    type: str | None
    file: str


def published_choices(paths: Sequence[str]) -> tuple[Choice, ...]:
    """The whole GGUF models among ``paths``, in order of name.

    None where there are safetensors too: those are the original, to be quantized here.
    """
    if any(path.endswith(".safetensors") for path in paths):
        return ()
    candidates = [
        path for path in paths if is_gguf(path) and not (_NOT_MODELS.search(path) or _is_odd(path))
    ]
    models = model_files(candidates)
    present = set(candidates)
    return tuple(
        Choice(_type_of(first), first)
        for first, files in sorted(models.items())
        if present.issuperset(files)
    )


def preferred(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """What a beginner wants of ``choices``: Q4_K_M and Q8_0; else the first."""
    by_type = {choice.type: choice for choice in reversed(choices)}
    found = tuple(by_type[kind] for kind in _PREFERRED if kind in by_type)
    return found or tuple(choices[:1])


def _is_odd(path: str) -> bool:
    return has_unprintable(path) or not path.endswith(".gguf")


def _type_of(path: str) -> str | None:
    shard = ShardName.parse(path)
    stem = PurePosixPath(shard.stem if shard else path.removesuffix(".gguf")).name
    match = _TYPE.match(stem)
    return match[1].lower() if match else None
