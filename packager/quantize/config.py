"""``config.json``, as far as the conversion needs it, with every value checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields

WHAT = "config.json"

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
MAX_HEADS = 1 << 14
MAX_VOCABULARY = 1 << 24
MAX_CONTEXT = 1 << 31


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions stretch beyond the trained context; ``kind`` is transformers' word.

    ``numbers`` are the further parameters, by transformers' names.
    """

    kind: str
    numbers: Mapping[str, float]

    def number(self, key: str, default: float | None = None) -> float:
        """The parameter ``key``; raises ``MalformedError`` where it must be there and is not."""
        value = self.numbers.get(key, default)
        if value is None:
            raise MalformedError(f"{WHAT}: rope_scaling.{key}: missing for {self.kind}")
        return value


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder. Sizes count elements."""

    architecture: str
    vocabulary: int
    width: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    context: int
    norm_epsilon: float
    rope_base: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    attention_bias: bool
    feed_forward_bias: bool
    sliding_window: int | None


@dataclass(frozen=True)
class Defaults:
    """What transformers assumes where a configuration is silent, by architecture."""

    head_size: int | None = None
    key_value_heads_are_heads: bool = False


def architecture_of(config: Mapping[str, object]) -> str:
    """The one architecture that ``config`` names, as ``LlamaForCausalLM``.

    Raises ``UsageError`` where there is none, or several.
    """
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UsageError(
            f"{WHAT}: 'architectures' does not name one architecture",
            hint="only causal language models are converted; use `format: safetensors`",
        )
    return names[0]


def parse_config(config: Mapping[str, object], defaults: Defaults) -> ModelConfig:
    """Check ``config`` and take what matters; raises ``MalformedError`` for impossible values."""
    fields = Fields.of(dict(config), WHAT)
    _check_activation(fields)
    width = fields.integer("hidden_size", least=1, most=MAX_WIDTH)
    heads = fields.integer("num_attention_heads", least=1, most=MAX_HEADS)
    rope = _rope_fields(fields)
    model = ModelConfig(
        architecture=architecture_of(config),
        vocabulary=fields.integer("vocab_size", least=1, most=MAX_VOCABULARY),
        width=width,
        feed_forward=fields.integer("intermediate_size", least=1, most=MAX_WIDTH),
        layers=fields.integer("num_hidden_layers", least=1, most=MAX_LAYERS),
        heads=heads,
        key_value_heads=_key_value_heads(fields, heads, defaults),
        head_size=_head_size(fields, width, heads, defaults),
        context=fields.integer("max_position_embeddings", least=1, most=MAX_CONTEXT),
        norm_epsilon=_number(fields, "rms_norm_eps", 1e-6),
        rope_base=_rope_base(fields, rope),
        rope_scaling=_rope_scaling(fields, rope),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=fields.flag("attention_bias", False),
        feed_forward_bias=fields.flag("mlp_bias", False),
        sliding_window=_sliding_window(fields),
    )
    if model.heads % model.key_value_heads:
        raise fields.refuse("num_key_value_heads", f"does not divide {model.heads} heads")
    return model


def _check_activation(fields: Fields) -> None:
    if (activation := fields.text("hidden_act", "silu")) != "silu":
        raise UsageError(
            f"{WHAT}: hidden_act: {activation!a} is not what llama.cpp computes here (silu)",
            hint="use `format: safetensors`",
        )


def _key_value_heads(fields: Fields, heads: int, defaults: Defaults) -> int:
    if defaults.key_value_heads_are_heads and not fields.has("num_key_value_heads"):
        return heads
    return fields.integer("num_key_value_heads", least=1, most=heads)


def _head_size(fields: Fields, width: int, heads: int, defaults: Defaults) -> int:
    if fields.has("head_dim"):
        size = fields.integer("head_dim", least=2, most=MAX_WIDTH)
    elif defaults.head_size is not None:
        size = defaults.head_size
    elif width % heads:
        raise fields.refuse("num_attention_heads", f"{heads} do not divide {width}")
    else:
        size = width // heads
    if size % 2:
        raise fields.refuse("head_dim", f"{size} is odd; rotary positions need pairs")
    return size


def _sliding_window(fields: Fields) -> int | None:
    if fields.values.get("use_sliding_window") is False or not fields.has("sliding_window"):
        return None
    return fields.integer("sliding_window", least=1, most=MAX_CONTEXT)


def _rope_fields(fields: Fields) -> Fields:
    """The rotary parameters: ``rope_parameters`` (transformers 5) or ``rope_scaling``."""
    for key in ("rope_parameters", "rope_scaling"):
        if fields.has(key):
            return fields.mapping(key)
    return fields.optional_mapping("rope_scaling")


def _rope_base(fields: Fields, rope: Fields) -> float:
    return _number(rope if rope.has("rope_theta") else fields, "rope_theta", 10000.0)


def _rope_scaling(fields: Fields, rope: Fields) -> RopeScaling | None:
    kind = rope.text("rope_type", rope.optional_text("type") or "default")
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise UsageError(
            f"{WHAT}: rope scaling {kind!a} is not converted (known: linear, llama3, yarn)",
            hint="use `format: safetensors`",
        )
    names = (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
    )
    numbers = {name: _number(rope, name) for name in names if rope.has(name)}
    if "original_max_position_embeddings" not in numbers:
        numbers["original_max_position_embeddings"] = float(
            fields.integer("max_position_embeddings", least=1, most=MAX_CONTEXT)
        )
    if not 1 <= numbers["original_max_position_embeddings"] <= MAX_CONTEXT:
        raise rope.refuse("original_max_position_embeddings", f"not within 1 to {MAX_CONTEXT}")
    scaling = RopeScaling(kind, numbers)
    low, high = scaling.number("low_freq_factor", 1.0), scaling.number("high_freq_factor", 4.0)
    if kind == "llama3" and low >= high:
        raise rope.refuse("low_freq_factor", f"{low} is not below high_freq_factor, {high}")
    return scaling


def _number(fields: Fields, key: str, default: float | None = None) -> float:
    """A positive number that single precision holds."""
    if default is not None and not fields.has(key):
        return default
    value = fields.values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fields.refuse(key, "expected a number")
    number = float(value) if abs(value) < 1e30 else math.inf
    if not 1e-30 < number < math.inf:
        raise fields.refuse(key, "not a positive, finite number of single precision")
    return number
