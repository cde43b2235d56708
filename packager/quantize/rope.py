"""Rotary positions: what ``config.json`` says of them, and how llama.cpp is told.

The arithmetic is that of transformers' ``modeling_rope_utils.py``. llama.cpp computes linear and
YaRN scaling itself; for the others it takes divisors of the frequencies, as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields
from packager.quantize.gguf_writer import Entry, float32, text, uint32
from packager.quantize.numbers import positive, positives

MAX_CONTEXT = 1 << 31

_NUMBERS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
)
# YaRN's bounds, which llama.cpp has built in for most architectures.
_BETA_FAST, _BETA_SLOW = 32.0, 1.0
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions stretch beyond the trained context; ``kind`` is transformers' word.

    ``numbers`` are the further parameters, by transformers' names; ``short`` and ``long`` are
    longrope's divisors of the frequencies, one for each pair of a head. ``trained`` and
    ``context`` are in tokens: before and after the stretch. ``log_multiplier`` is YaRN's
    ``mscale_all_dim`` where llama.cpp reads it, else 0.
    """

    kind: str
    numbers: Mapping[str, float]
    trained: int
    context: int
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    log_multiplier: float = 0.0

    def number(self, key: str, default: float | None = None) -> float:
        """The parameter ``key``; raises ``MalformedError`` where it must be there and is not."""
        value = self.numbers.get(key, default)
        if value is None:
            raise MalformedError(f"config.json: rope_scaling.{key}: missing for {self.kind}")
        return value


@dataclass(frozen=True)
class Rope:
    """``size`` elements of each head turn, the slowest pair once in about 2 pi ``base`` tokens."""

    base: float
    size: int
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class RopeSupport:
    """What llama.cpp computes for an architecture, by transformers' names of the scalings.

    ``partial``: only a part of each head may turn. ``reads_yarn``: YaRN's bounds and the
    divisor of its factor (``mscale_all_dim``) are read from the file.
    """

    kinds: tuple[str, ...] = ("linear", "yarn")
    partial: bool = False
    reads_yarn: bool = False


def parse_rope(
    config: Fields, support: RopeSupport, *, head_size: int, context: int
) -> tuple[Rope, Rope | None]:
    """The rotary positions of all layers, or of those with full and with sliding attention.

    Raises ``MalformedError`` for values that make no sense, ``UsageError`` for scaling that
    llama.cpp does not compute.
    """
    rope = _rope_fields(config)
    if not rope.has(_FULL):
        return _parse(config, rope, support, head_size, context), None
    return (
        _parse(config, rope.mapping(_FULL), support, head_size, context),
        _parse(config, rope.optional_mapping(_SLIDING), support, head_size, context),
    )


def rope_entries(rope: Rope) -> list[Entry]:
    """The metadata of ``rope``; the keys lack the architecture before them."""
    entries = [
        uint32("rope.dimension_count", rope.size),
        float32("rope.freq_base", rope.base),
    ]
    if rope.scaling is not None:
        entries += _ENTRIES[rope.scaling.kind](rope.scaling)
    return entries


def rope_tensors(rope: Rope) -> dict[str, tuple[float, ...]]:
    """Divisors of the rotary frequencies, by GGUF's names, where llama.cpp takes them so."""
    scaling = rope.scaling
    if scaling is not None and scaling.kind == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rope, scaling)}
    if scaling is not None and scaling.kind == "longrope":
        return {
            "rope_factors_long.weight": scaling.long,
            "rope_factors_short.weight": scaling.short,
        }
    return {}


def _rope_fields(config: Fields) -> Fields:
    """The rotary parameters: ``rope_parameters`` (transformers 5) or ``rope_scaling``."""
    for key in ("rope_parameters", "rope_scaling"):
        if config.has(key):
            return config.mapping(key)
    return config.optional_mapping("rope_scaling")


def _parse(
    config: Fields, rope: Fields, support: RopeSupport, head_size: int, context: int
) -> Rope:
    base = positive(rope if rope.has("rope_theta") else config, "rope_theta", 10000.0)
    size = head_size
    key = "partial_rotary_factor"
    part = positive(rope if rope.has(key) else config, key, 1.0)
    if part != 1.0:
        size = int(head_size * part)
        if not support.partial or size < 2 or size % 2 or size > head_size:
            raise UsageError(
                f"config.json: {key}: {part} is not what llama.cpp computes here",
                hint="use `format: safetensors`",
            )
    return Rope(base, size, _parse_scaling(config, rope, support, size, context))


def _parse_scaling(
    config: Fields, rope: Fields, support: RopeSupport, size: int, context: int
) -> RopeScaling | None:
    kind = rope.text("rope_type", rope.optional_text("type") or "default")
    kind = "longrope" if kind == "su" else kind
    if kind == "default":
        return None
    if kind not in support.kinds:
        raise UsageError(
            f"config.json: rope scaling {kind!a} is not converted for this architecture "
            f"(known: {', '.join(support.kinds)})",
            hint="use `format: safetensors`",
        )
    scaling = RopeScaling(
        kind,
        {name: positive(rope, name) for name in _NUMBERS if rope.has(name)},
        trained=_trained_context(config, rope, context),
        context=context,
        short=_factors(rope, "short_factor", size) if kind == "longrope" else (),
        long=_factors(rope, "long_factor", size) if kind == "longrope" else (),
        log_multiplier=positive(rope, "mscale_all_dim", 0.0) if support.reads_yarn else 0.0,
    )
    _check_scaling(rope, scaling, support)
    return scaling


def _trained_context(config: Fields, rope: Fields, context: int) -> int:
    key = "original_max_position_embeddings"
    for fields in (rope, config):
        if fields.has(key):
            trained = positive(fields, key)
            # Of one token there is no logarithm to divide by.
            if not 2 <= trained <= MAX_CONTEXT:
                raise fields.refuse(key, f"not within 2 to {MAX_CONTEXT}")
            return int(trained)
    if context < 2:
        raise config.refuse("max_position_embeddings", "too few positions to stretch")
    return context


def _factors(rope: Fields, key: str, size: int) -> tuple[float, ...]:
    factors = positives(rope, key)
    if len(factors) != size // 2:
        raise rope.refuse(key, f"{len(factors)} numbers for {size // 2} pairs of a head")
    return factors


def _check_scaling(rope: Fields, scaling: RopeScaling, support: RopeSupport) -> None:
    low, high = scaling.number("low_freq_factor", 1.0), scaling.number("high_freq_factor", 4.0)
    if scaling.kind == "llama3" and low >= high:
        raise rope.refuse("low_freq_factor", f"{low} is not below high_freq_factor, {high}")
    betas = (scaling.number("beta_fast", _BETA_FAST), scaling.number("beta_slow", _BETA_SLOW))
    if scaling.kind == "yarn" and not support.reads_yarn and betas != (_BETA_FAST, _BETA_SLOW):
        raise UsageError(
            f"config.json: rope_scaling: beta_fast and beta_slow are {betas[0]} and {betas[1]}; "
            f"llama.cpp takes {_BETA_FAST} and {_BETA_SLOW} for this architecture",
            hint="use `format: safetensors`",
        )


def _linear_entries(scaling: RopeScaling) -> list[Entry]:
    return [
        text("rope.scaling.type", "linear"),
        float32("rope.scaling.factor", scaling.number("factor")),
    ]


def _yarn_entries(scaling: RopeScaling) -> list[Entry]:
    entries = [
        text("rope.scaling.type", "yarn"),
        float32("rope.scaling.factor", scaling.number("factor")),
        uint32("rope.scaling.original_context_length", scaling.trained),
    ]
    entries += [
        float32(f"rope.scaling.yarn_{theirs}", scaling.number(theirs))
        for theirs in ("beta_fast", "beta_slow")
        if theirs in scaling.numbers
    ]
    usual = _stretch(scaling.number("factor"), 1.0)
    if scaling.log_multiplier:
        entries.append(float32("rope.scaling.yarn_log_multiplier", scaling.log_multiplier))
        usual /= _stretch(scaling.number("factor"), scaling.log_multiplier)
    # llama.cpp scales attention by the usual factor and then by this one.
    extra = yarn_attention(scaling) / usual
    if not math.isclose(extra, 1.0, rel_tol=1e-6):
        entries.append(float32("rope.scaling.attn_factor", extra))
    return entries


def _llama3_entries(_scaling: RopeScaling) -> list[Entry]:
    return []  # the tensor says it all


def _longrope_entries(scaling: RopeScaling) -> list[Entry]:
    attention = scaling.numbers.get("attention_factor")
    if attention is None:
        factor = scaling.number("factor", scaling.context / scaling.trained)
        attention = (
            1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(scaling.trained))
        )
    return [
        text("rope.scaling.type", "longrope"),
        uint32("rope.scaling.original_context_length", scaling.trained),
        float32("rope.scaling.attn_factor", attention),
    ]


_ENTRIES = {
    "linear": _linear_entries,
    "yarn": _yarn_entries,
    "llama3": _llama3_entries,
    "longrope": _longrope_entries,
}


def yarn_attention(scaling: RopeScaling) -> float:
    """The factor of queries and keys that YaRN wants (``_compute_yarn_parameters``)."""
    if "attention_factor" in scaling.numbers:
        return scaling.number("attention_factor")
    factor = scaling.number("factor")
    if "mscale" in scaling.numbers and "mscale_all_dim" in scaling.numbers:
        every = _stretch(factor, scaling.number("mscale_all_dim"))
        return _stretch(factor, scaling.number("mscale")) / every
    return _stretch(factor, 1.0)


def _stretch(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _llama3_factors(rope: Rope, scaling: RopeScaling) -> tuple[float, ...]:
    """Llama 3's divisors, one for each pair of a head (``_compute_llama3_parameters``).

    Slow rotations are divided by ``factor``, fast ones are left, those between are blended.
    """
    factor = scaling.number("factor", 8.0)
    low = scaling.number("low_freq_factor", 1.0)
    high = scaling.number("high_freq_factor", 4.0)
    factors = []
    for wavelength in _wavelengths(rope):
        if wavelength < scaling.trained / high:
            factors.append(1.0)
        elif wavelength > scaling.trained / low:
            factors.append(factor)
        else:
            blend = (scaling.trained / wavelength - low) / (high - low)
            factors.append(1 / ((1 - blend) / factor + blend))
    return tuple(factors)


def _wavelengths(rope: Rope) -> Sequence[float]:
    """Tokens to a full turn of each pair."""
    return [2 * math.pi * rope.base ** (2 * pair / rope.size) for pair in range(rope.size // 2)]
