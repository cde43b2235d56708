"""``config.json``, as far as the conversion needs it, with every value checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.numbers import positive
from packager.quantize.rope import MAX_CONTEXT, Rope, RopeSupport, parse_rope

WHAT = "config.json"

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_WIDTH = 1 << 20  # of a row, which is converted as a whole
MAX_HEADS = 1 << 14
MAX_VOCABULARY = 1 << 24
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_TEXT_KINDS = 1 << 16  # of which BERT tells two apart


@dataclass(frozen=True)
class Dialect:
    """How an architecture writes its configuration, and what llama.cpp makes of it.

    ``defaults`` is what transformers assumes where a configuration is silent; ``keys`` maps keys
    of the architecture's own to the usual ones. ``activations`` are those that llama.cpp computes.
    ``rope`` is ``None`` without rotary positions. ``has_experts``: the feed-forward network is a
    mixture of experts. ``counts_from_padding``: the first position of a text is that after
    ``pad_token_id``.
    """

    defaults: Mapping[str, object] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    activations: tuple[str, ...] = ("silu",)
    rope: RopeSupport | None = field(default_factory=RopeSupport)
    has_experts: bool = False
    counts_from_padding: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Sizes count elements; ``experts`` is 0 where there are none.

    ``context`` is in tokens; ``first_position`` is how many positions before a text's first
    are never used.

    ``sliding_rope`` is that of the layers with sliding attention where it differs,
    ``sliding_window`` in tokens. ``fields`` is the whole configuration in the usual keys, for
    what only one architecture reads.
    """

    architecture: str
    vocabulary: int
    width: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    context: int
    first_position: int
    norm_epsilon: float
    rope: Rope | None
    sliding_rope: Rope | None
    experts: int
    experts_used: int
    tied_embeddings: bool
    sliding_window: int | None
    fields: Fields = field(compare=False, repr=False)


def architecture_of(config: Mapping[str, object]) -> str:
    """The one architecture that ``config`` names, as ``LlamaForCausalLM``.

    Raises ``UsageError`` where there is none, or several.
    """
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UsageError(
            f"{WHAT}: 'architectures' does not name one architecture",
            hint="use `format: safetensors`",
        )
    return names[0]


def parse_config(config: Mapping[str, object], dialect: Dialect) -> ModelConfig:
    """Check ``config`` and take what matters.

    Raises ``MalformedError`` for impossible values, ``UsageError`` for what llama.cpp does not
    compute.
    """
    fields = _usual_fields(config, dialect)
    _check_activation(fields, dialect)
    width = fields.integer("hidden_size", least=1, most=MAX_WIDTH)
    heads = fields.integer("num_attention_heads", least=1, most=MAX_HEADS)
    head_size = _head_size(fields, dialect, width, heads)
    if heads * head_size > MAX_WIDTH:
        raise fields.refuse("head_dim", f"{heads} heads of {head_size} are beyond {MAX_WIDTH}")
    first_position = 0
    if dialect.counts_from_padding:
        first_position = fields.integer("pad_token_id", most=MAX_VOCABULARY) + 1
    positions = fields.integer(
        "max_position_embeddings", least=first_position + 1, most=MAX_CONTEXT
    )
    context = positions - first_position
    rope, sliding_rope = None, None
    if dialect.rope is not None:
        rope, sliding_rope = parse_rope(fields, dialect.rope, head_size=head_size, context=context)
    experts, experts_used = _experts(fields) if dialect.has_experts else (0, 0)
    return ModelConfig(
        architecture=architecture_of(config),
        vocabulary=fields.integer("vocab_size", least=1, most=MAX_VOCABULARY),
        width=width,
        feed_forward=fields.integer("intermediate_size", least=1, most=MAX_WIDTH),
        layers=fields.integer("num_hidden_layers", least=1, most=MAX_LAYERS),
        heads=heads,
        key_value_heads=_key_value_heads(fields, heads),
        head_size=head_size,
        context=context,
        first_position=first_position,
        norm_epsilon=positive(fields, "rms_norm_eps", 1e-6),
        rope=rope,
        sliding_rope=sliding_rope,
        experts=experts,
        experts_used=experts_used,
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=_sliding_window(fields),
        fields=fields,
    )


def _usual_fields(config: Mapping[str, object], dialect: Dialect) -> Fields:
    """The configuration in the usual keys; that of the text part, where there are several."""
    text = config.get("text_config")
    flat = {**config, **text} if isinstance(text, dict) else dict(config)
    full = {**dialect.defaults, **flat}
    renamed = {usual: full[own] for own, usual in dialect.keys.items() if own in full}
    return Fields.of({**full, **renamed}, WHAT)


def _check_activation(fields: Fields, dialect: Dialect) -> None:
    activation = fields.text("hidden_act", dialect.activations[0])
    if activation not in dialect.activations:
        raise UsageError(
            f"{WHAT}: hidden_act: {activation!a} is not what llama.cpp computes here "
            f"({', '.join(dialect.activations)})",
            hint="use `format: safetensors`",
        )


def _key_value_heads(fields: Fields, heads: int) -> int:
    if not fields.has("num_key_value_heads"):
        return heads
    key_value_heads = fields.integer("num_key_value_heads", least=1, most=heads)
    if heads % key_value_heads:
        raise fields.refuse("num_key_value_heads", f"does not divide {heads} heads")
    return key_value_heads


def _head_size(fields: Fields, dialect: Dialect, width: int, heads: int) -> int:
    if fields.has("head_dim"):
        size = fields.integer("head_dim", least=2, most=MAX_WIDTH)
    elif width % heads:
        raise fields.refuse("num_attention_heads", f"{heads} do not divide {width}")
    else:
        size = width // heads
    if dialect.rope is not None and size % 2:
        raise fields.refuse("head_dim", f"{size} is odd; rotary positions need pairs")
    return size


def _sliding_window(fields: Fields) -> int | None:
    if fields.values.get("use_sliding_window") is False or not fields.has("sliding_window"):
        return None
    return fields.integer("sliding_window", least=1, most=MAX_CONTEXT)


def _experts(fields: Fields) -> tuple[int, int]:
    """How many experts there are, and how many of them see a token."""
    key = "num_local_experts" if fields.has("num_local_experts") else "num_experts"
    count = fields.integer(key, least=2, most=MAX_EXPERTS)
    return count, fields.integer("num_experts_per_tok", least=1, most=count)
