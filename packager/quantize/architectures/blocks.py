"""The parts that decoders are made of. An architecture lists those of a layer.

Names are those within a layer: transformers' ``self_attn.q_proj`` is GGUF's ``attn_q``.
"""

from __future__ import annotations

from collections.abc import Iterable

from packager.errors import UsageError
from packager.quantize.architectures.weights import Weight, linear, stacked, whole
from packager.quantize.config import ModelConfig


def ends(config: ModelConfig, *, plus: float = 0.0) -> Iterable[Weight]:
    """What stands before and after the layers: embeddings, the last norm, the output.

    ``plus`` is added to the norm. Embeddings that are tied serve as the output too.
    """
    table = (config.vocabulary, config.width)
    yield whole("token_embd.weight", "model.embed_tokens.weight", table)
    yield whole("output_norm.weight", "model.norm.weight", (config.width,), plus=plus)
    if not config.tied_embeddings:
        yield whole("output.weight", "lm_head.weight", table)


def norm(ours: str, theirs: str, size: int, *, plus: float = 0.0) -> Weight:
    """One norm over ``size`` elements."""
    return whole(f"{ours}.weight", f"{theirs}.weight", (size,), plus=plus)


def pre_norms(config: ModelConfig) -> Iterable[Weight]:
    """Norms before attention and before the feed-forward network."""
    yield norm("attn_norm", "input_layernorm", config.width)
    yield norm("ffn_norm", "post_attention_layernorm", config.width)


def attention(
    config: ModelConfig,
    *,
    bias: bool | None = None,
    output_bias: bool | None = None,
    interleaved: bool = False,
) -> Iterable[Weight]:
    """Queries, keys, values and output; biases where the configuration says so, unless told.

    ``interleaved``: llama.cpp rotates neighbouring rows of q and k here, transformers rows half
    a head apart, so the rows of each head are reordered.
    """
    bias = config.fields.flag("attention_bias", False) if bias is None else bias
    output_bias = bias if output_bias is None else output_bias
    queries = config.heads * config.head_size
    keys = config.key_value_heads * config.head_size
    turned = config.head_size if interleaved else 0
    yield from linear(
        "attn_q", "self_attn.q_proj", (queries, config.width), bias=bias, head_rows=turned
    )
    yield from linear(
        "attn_k", "self_attn.k_proj", (keys, config.width), bias=bias, head_rows=turned
    )
    yield from linear("attn_v", "self_attn.v_proj", (keys, config.width), bias=bias)
    yield from linear("attn_output", "self_attn.o_proj", (config.width, queries), bias=output_bias)


def head_norms(config: ModelConfig, *, plus: float = 0.0) -> Iterable[Weight]:
    """Norms of each head's queries and keys."""
    yield norm("attn_q_norm", "self_attn.q_norm", config.head_size, plus=plus)
    yield norm("attn_k_norm", "self_attn.k_norm", config.head_size, plus=plus)


def gated_feed_forward(config: ModelConfig) -> Iterable[Weight]:
    """Gate and way up side by side, multiplied, then the way down."""
    bias = config.fields.flag("mlp_bias", False)
    up, down = (config.feed_forward, config.width), (config.width, config.feed_forward)
    yield from linear("ffn_gate", "mlp.gate_proj", up, bias=bias)
    yield from linear("ffn_up", "mlp.up_proj", up, bias=bias)
    yield from linear("ffn_down", "mlp.down_proj", down, bias=bias)


def experts(
    config: ModelConfig,
    size: int,
    *,
    router: str,
    each: str,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> Iterable[Weight]:
    """Gated feed-forward networks of ``size``, of which a router chooses some for each token.

    ``each`` is transformers' name of an expert with {} for its number, ``names`` are those of
    its gate, way up and way down.
    """
    gate, up, down = (f"{each}.{name}.weight" for name in names)
    inward, outward = (size, config.width), (config.width, size)
    yield whole("ffn_gate_inp.weight", f"{router}.weight", (config.experts, config.width))
    yield stacked("ffn_gate_exps.weight", gate, config.experts, inward)
    yield stacked("ffn_up_exps.weight", up, config.experts, inward)
    yield stacked("ffn_down_exps.weight", down, config.experts, outward)


def only(config: ModelConfig, **computed: object) -> None:
    """Refuse a configuration in which a key has another value than llama.cpp computes.

    A key that is missing or null has that value. Raises ``UsageError``.
    """
    for key, value in computed.items():
        found = config.fields.values.get(key)
        if found is not None and found != value:
            raise UsageError(
                f"config.json: {key}: {str(found)[:80]} is not what llama.cpp computes for "
                f"{config.architecture} ({value})",
                hint="use `format: safetensors`",
            )
