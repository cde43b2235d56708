"""Gemma 3, its text part: Gemma 2's norms, norms of queries and keys, five of six layers slide."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import head_norms, only
from packager.quantize.architectures.gemma2 import PLUS, check_gemma, gemma_ends, gemma_layer
from packager.quantize.architectures.seeing import SEEING_PART, TEXT_PART, text_only
from packager.quantize.architectures.sliding import check_sliding_rope, sliding_entries
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, float32
from packager.quantize.numbers import positive


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from gemma_layer(config)
    yield from head_norms(config, plus=PLUS)


def _entries(config: ModelConfig) -> Iterable[Entry]:
    check_gemma(config, layers_of_27b=62)
    only(config, attn_logit_softcapping=None)
    if config.fields.has("final_logit_softcapping"):
        yield float32("final_logit_softcapping", positive(config.fields, "final_logit_softcapping"))
    rhythm = "sliding_window_pattern"
    rhythm = rhythm if config.fields.has(rhythm) else f"_{rhythm}"
    yield from sliding_entries(config, full_every=config.fields.integer(rhythm, 6, least=1))
    check_sliding_rope(config)
    sliding = config.sliding_rope
    base = sliding.base if sliding else positive(config.fields, "rope_local_base_freq", 10000.0)
    yield float32("rope.freq_base_swa", base)


GEMMA3 = Architecture(
    names=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    gguf_name="gemma3",
    layer=_layer,
    outside=gemma_ends,
    entries=_entries,
    dialect=Dialect(
        defaults={
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "rope_theta": 1000000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
        keys={"hidden_activation": "hidden_act"},
        activations=("gelu_pytorch_tanh",),
    ),
    keeps_window=True,
    notes=text_only,
    renamed=TEXT_PART,
    left_out=SEEING_PART,
)
