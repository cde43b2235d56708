"""BERT as an encoder of texts (MiniLM, BGE, E5, GTE): learnt positions, norms after the blocks.

XLM-RoBERTa (multilingual E5, BGE-M3) differs by the number of its first position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import only
from packager.quantize.architectures.weights import Part, Weight, linear, whole
from packager.quantize.config import MAX_TEXT_KINDS, Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def biased_norm(ours: str, theirs: str, size: int) -> Iterable[Weight]:
    """The weight and the bias of a norm."""
    yield whole(f"{ours}.weight", f"{theirs}.weight", (size,))
    yield whole(f"{ours}.bias", f"{theirs}.bias", (size,))


def embeddings(config: ModelConfig) -> Iterable[Weight]:
    """The tables of words and of kinds of text."""
    kinds = config.fields.integer("type_vocab_size", least=1, most=MAX_TEXT_KINDS)
    table = (config.vocabulary, config.width)
    yield whole("token_embd.weight", "embeddings.word_embeddings.weight", table)
    yield whole(
        "token_types.weight", "embeddings.token_type_embeddings.weight", (kinds, config.width)
    )


def _outside(config: ModelConfig) -> Iterable[Weight]:
    yield from embeddings(config)
    yield _positions(config)
    yield from biased_norm("token_embd_norm", "embeddings.LayerNorm", config.width)


def _positions(config: ModelConfig) -> Weight:
    positions = Part(
        "embeddings.position_embeddings.weight",
        (config.first_position + config.context, config.width),
        rows=config.context,
        first=config.first_position,
    )
    return Weight("position_embd.weight", (config.context, config.width), (positions,))


def _layer(config: ModelConfig) -> Iterable[Weight]:
    width, inner = config.width, config.feed_forward
    for ours, theirs, shape in (
        ("attn_q", "attention.self.query", (width, width)),
        ("attn_k", "attention.self.key", (width, width)),
        ("attn_v", "attention.self.value", (width, width)),
        ("attn_output", "attention.output.dense", (width, width)),
        ("ffn_up", "intermediate.dense", (inner, width)),
        ("ffn_down", "output.dense", (width, inner)),
    ):
        yield from linear(ours, theirs, shape, bias=True)
    yield from biased_norm("attn_output_norm", "attention.output.LayerNorm", width)
    yield from biased_norm("layer_output_norm", "output.LayerNorm", width)


def _check(config: ModelConfig) -> Iterable[Entry]:
    only(config, position_embedding_type="absolute", is_decoder=False)
    return ()


BERT = Architecture(
    names=("BertModel",),
    gguf_name="bert",
    layer=_layer,
    outside=_outside,
    entries=_check,
    dialect=Dialect(
        defaults={"rms_norm_eps": 1e-12, "type_vocab_size": 2},
        keys={"layer_norm_eps": "rms_norm_eps"},
        activations=("gelu",),
        rope=None,
    ),
    is_encoder=True,
    norm_epsilon="layer_norm_epsilon",
    layer_prefix="encoder.layer.{}.",
    # Names of checkpoints that were made for guessing words, or long ago.
    renamed=((r"^bert\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
    left_out=r"embeddings\.position_ids$|pooler\.|cls\.",
)

XLM_ROBERTA = replace(
    BERT,
    names=("XLMRobertaModel",),
    dialect=replace(
        BERT.dialect,
        defaults={"rms_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 1},
        counts_from_padding=True,
    ),
    renamed=((r"^roberta\.", ""),),
    left_out=r"embeddings\.position_ids$|pooler\.|lm_head\.",
)
