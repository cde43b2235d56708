"""PEFT's ``adapter_config.json``: how strongly an adapter acts, or why it cannot be carried.

The keys are those of ``LoraConfig`` in PEFT 0.21 (``src/peft/tuners/lora/config.py``). llama.cpp
adds ``scale * B A`` to a matrix and knows nothing else, so whatever else a key asks for, one of a
later PEFT included, is refused: dropped in silence, it would make another model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.numbers import positive

ADAPTER_CONFIG = "adapter_config.json"
MERGE = "merge the adapter into its model (PEFT: merge_and_unload), and bundle what comes of it"

_MAX_RANK = 1 << 16
# Understood here.
_READ = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights")
# Said of the training, or visible in the names and shapes of the tensors.
_MINOR = (
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision",
    "target_modules", "task_type",
)  # fmt: skip
# The others (PiSSA, OLoRA, CorDA, LoftQ, ...) change the weights of the base as well.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")
# PEFT takes any regular expression; these are all that a name needs, and cost nothing to match.
_PLAIN_PATTERN = re.compile(r"[\w.]+\Z")


@dataclass(frozen=True)
class AdapterConfig:
    """``ranks`` and ``alphas`` are pairs of a pattern of module names and what holds for those."""

    rank: int
    alpha: float
    rank_stabilized: bool
    ranks: tuple[tuple[str, int], ...]
    alphas: tuple[tuple[str, float], ...]
    base_name: str | None

    def rank_of(self, module: str) -> int:
        """The rank of the matrices of ``module``."""
        return next((rank for key, rank in self.ranks if _is_meant(module, key)), self.rank)

    def alpha_of(self, module: str) -> float:
        """What, divided by the rank, multiplies the product of the matrices of ``module``.

        That is alpha (https://arxiv.org/abs/2106.09685, 4.1). Where the adapter is
        rank-stabilized (https://arxiv.org/abs/2312.03732), it is alpha sqrt(rank), since
        alpha / sqrt(rank) multiplies.
        """
        alpha = next((alpha for key, alpha in self.alphas if _is_meant(module, key)), self.alpha)
        return alpha * math.sqrt(self.rank_of(module)) if self.rank_stabilized else alpha

    @property
    def usual_alpha(self) -> float:
        """That of the modules that no pattern singles out."""
        return self.alpha * math.sqrt(self.rank) if self.rank_stabilized else self.alpha


def parse_adapter_config(document: Mapping[str, object]) -> AdapterConfig:
    """Read a parsed ``adapter_config.json``.

    Raises ``UsageError`` for what llama.cpp does not compute, ``MalformedError`` for values that
    make no sense.
    """
    fields = Fields.of(dict(document), ADAPTER_CONFIG)
    _refuse_others(fields)
    return AdapterConfig(
        rank=fields.integer("r", least=1, most=_MAX_RANK),
        alpha=positive(fields, "lora_alpha"),
        rank_stabilized=fields.flag("use_rslora", False),
        ranks=tuple(
            (key, entry.integer(key, least=1, most=_MAX_RANK))
            for entry in (fields.optional_mapping("rank_pattern"),)
            for key in _patterns(entry)
        ),
        alphas=tuple(
            (key, positive(entry, key))
            for entry in (fields.optional_mapping("alpha_pattern"),)
            for key in _patterns(entry)
        ),
        base_name=str(fields.values.get("base_model_name_or_path") or "") or None,
    )


def _refuse_others(fields: Fields) -> None:
    kind = fields.values.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"{ADAPTER_CONFIG}: an adapter of the type {kind!a}, not LORA", hint=MERGE)
    if fields.values.get("init_lora_weights", True) not in _STARTS:
        raise UsageError(
            f"{ADAPTER_CONFIG}: init_lora_weights {fields.values['init_lora_weights']!a} belongs "
            "to another base than the published one",
            hint=MERGE,
        )
    for key, value in fields.values.items():
        if value and key not in (*_READ, *_MINOR) and (key, value) != ("bias", "none"):
            raise UsageError(
                f"{ADAPTER_CONFIG}: {key[:80]} is set, and llama.cpp computes plain LoRA alone",
                hint=MERGE,
            )


def _patterns(fields: Fields) -> tuple[str, ...]:
    for key in fields.values:
        if not _PLAIN_PATTERN.match(key):
            raise UsageError(
                f"{fields.where}: {key[:80]!a} is more than a name or the end of one", hint=MERGE
            )
    return tuple(fields.values)


def _is_meant(module: str, pattern: str) -> bool:
    """As ``get_pattern_key`` of PEFT has it: the whole name, or its end from a dot on.

    In a pattern, a regular expression, a dot is any character. It is not compiled: there may be
    thousands, and each is asked about every module.
    """
    before, end = module[: -len(pattern)], module[-len(pattern) :]
    return (
        len(end) == len(pattern)
        and (not before or before.endswith("."))
        and all(wanted in (".", found) for wanted, found in zip(pattern, end, strict=True))
    )
