"""Nomic Embed: BERT with rotary positions, a gate, and no biases."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.bert import biased_norm, embeddings
from packager.quantize.architectures.blocks import only
from packager.quantize.architectures.weights import Weight, linear
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def _outside(config: ModelConfig) -> Iterable[Weight]:
    yield from embeddings(config)
    yield from biased_norm("token_embd_norm", "emb_ln", config.width)


def _layer(config: ModelConfig) -> Iterable[Weight]:
    width, inner = config.width, config.feed_forward
    for ours, theirs, shape in (
        ("attn_qkv", "attn.Wqkv", (3 * width, width)),
        ("attn_output", "attn.out_proj", (width, width)),
        ("ffn_up", "mlp.fc11", (inner, width)),
        ("ffn_gate", "mlp.fc12", (inner, width)),
        ("ffn_down", "mlp.fc2", (width, inner)),
    ):
        yield from linear(ours, theirs, shape)
    yield from biased_norm("attn_output_norm", "norm1", width)
    yield from biased_norm("layer_output_norm", "norm2", width)


def _check(config: ModelConfig) -> Iterable[Entry]:
    only(
        config,
        causal=False,
        prenorm=False,
        qkv_proj_bias=False,
        mlp_fc1_bias=False,
        mlp_fc2_bias=False,
        use_rms_norm=False,
        rotary_emb_fraction=1.0,
        rotary_emb_interleaved=False,
        rotary_emb_scale_base=None,
        moe_every_n_layers=0,
        head_dim=config.width // config.heads,
    )
    return ()


NOMIC_BERT = Architecture(
    names=("NomicBertModel",),
    gguf_name="nomic-bert",
    layer=_layer,
    outside=_outside,
    entries=_check,
    dialect=Dialect(
        # n_positions promises 8192; 2048 were trained, and it takes other rotations beyond.
        defaults={
            "rms_norm_eps": 1e-12,
            "type_vocab_size": 2,
            "rope_theta": 1000.0,
            "max_position_embeddings": 2048,
        },
        keys={
            "n_embd": "hidden_size",
            "n_inner": "intermediate_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "max_trained_positions": "max_position_embeddings",
            "rotary_emb_base": "rope_theta",
            "activation_function": "hidden_act",
            "layer_norm_epsilon": "rms_norm_eps",
            "layer_norm_eps": "rms_norm_eps",
        },
        activations=("silu", "swiglu"),
    ),
    is_encoder=True,
    norm_epsilon="layer_norm_epsilon",
    layer_prefix="encoder.layers.{}.",
    renamed=((r"^bert\.", ""),),
    left_out=r"pooler\.|cls\.",
)
