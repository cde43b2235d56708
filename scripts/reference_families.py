"""The reference checkpoints of families beyond Llama: what is peculiar to each is small but there.

Sliding windows, trained contexts and soft caps are so small that the text goes beyond them.
"""

from __future__ import annotations

from pathlib import Path

import transformers
from reference_tokenizers import (
    GPT2_END,
    GPT4O_CUT,
    LLAMA3_CUT,
    QWEN2_CUT,
    TEKKEN_CUT,
    begin_with,
    byte_level,
    gemma_tokenizer,
    sentencepiece_model,
    sentencepiece_tokenizer,
    with_stripping_tokens,
)
from reference_writer import write_checkpoint
from tokenizers import Tokenizer

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
SLIDING, FULL = "sliding_attention", "full_attention"
# What the settings of a tokenizer say of its ends, by family.
SENTENCEPIECE_ENDS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GPT2_ENDS = {"bos_token": GPT2_END, "eos_token": GPT2_END}
GRANITE_SPECIAL = [GPT2_END, "<|end_of_role|>"]
GRANITE = {
    "vocab_size": 320,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.0,
    "tie_word_embeddings": True,
}
MINISTRAL_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]"]


def small_tokenizer(cut: str | None, special: list[str], **how: bool) -> Tokenizer:
    """A byte-level tokenizer of 320 tokens."""
    return byte_level(cut, special, size=320, ignore_merges=how.get("ignore_merges", False))


def make_mixtral(folder: Path) -> None:
    model = sentencepiece_model(400)
    config = transformers.MixtralConfig(
        **{**SMALL, "intermediate_size": 32},
        vocab_size=400,
        num_local_experts=4,
        num_experts_per_tok=2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    write_checkpoint(folder, config, sentencepiece_tokenizer(model), SENTENCEPIECE_ENDS, "</s>")


def make_ministral(folder: Path) -> None:
    tokenizer = small_tokenizer(TEKKEN_CUT, MINISTRAL_SPECIAL, ignore_merges=True)
    begin_with(tokenizer, "<s>")
    # The window is wider than the text: llama.cpp has none for this architecture.
    config = transformers.MinistralConfig(
        **SMALL,
        head_dim=24,
        vocab_size=320,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        sliding_window=256,
        layer_types=[FULL, SLIDING],
        tie_word_embeddings=False,
    )
    write_checkpoint(folder, config, tokenizer, SENTENCEPIECE_ENDS, "[INST]")


def make_ministral3(folder: Path) -> None:
    tokenizer = small_tokenizer(TEKKEN_CUT, MINISTRAL_SPECIAL, ignore_merges=True)
    begin_with(tokenizer, "<s>")
    config = transformers.Ministral3Config(
        **SMALL,
        head_dim=24,
        vocab_size=320,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        pad_token_id=None,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.3,
        },
        tie_word_embeddings=False,
    )
    write_checkpoint(folder, config, tokenizer, SENTENCEPIECE_ENDS, "[INST]")


def make_qwen3_moe(folder: Path) -> None:
    special = [GPT2_END, "<|im_start|>", "<|im_end|>"]
    tokenizer = small_tokenizer(QWEN2_CUT, special)
    config = transformers.Qwen3MoeConfig(
        **SMALL,
        head_dim=24,
        vocab_size=320,
        num_experts=6,
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        norm_topk_prob=True,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        tie_word_embeddings=False,
    )
    settings = {"eos_token": "<|im_end|>", "pad_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_start|>", shard_size="100KB")


def make_gemma2(folder: Path) -> None:
    tokenizer, model = gemma_tokenizer(400)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    config = transformers.Gemma2Config(
        **SMALL,
        head_dim=24,
        query_pre_attn_scalar=24,
        vocab_size=404,
        sliding_window=16,
        attn_logit_softcapping=4.0,
        final_logit_softcapping=3.0,
    )
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "tokenizer_class": "GemmaTokenizer",
    }
    write_checkpoint(folder, config, tokenizer, settings, "<end_of_turn>")


def make_gemma3(folder: Path) -> None:
    tokenizer, _ = gemma_tokenizer(400)
    config = transformers.Gemma3TextConfig(
        **{**SMALL, "num_hidden_layers": 3},
        head_dim=24,
        query_pre_attn_scalar=24,
        vocab_size=400,
        sliding_window=16,
        layer_types=[SLIDING, FULL, SLIDING],
        rope_parameters={
            FULL: {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
            SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    settings = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    write_checkpoint(folder, config, tokenizer, settings, "<end_of_turn>")


def make_phi3(folder: Path) -> None:
    model = sentencepiece_model(400)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    tokenizer = with_stripping_tokens(
        sentencepiece_tokenizer(model), ["<|endoftext|>", "<|user|>", "<|end|>"]
    )
    config = transformers.Phi3Config(
        **SMALL,
        vocab_size=408,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    settings = {
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
    }
    write_checkpoint(folder, config, tokenizer, settings, "<|end|>")


def make_phi4_mini(folder: Path) -> None:
    special = [GPT2_END, "<|user|>", "<|end|>"]
    tokenizer = small_tokenizer(GPT4O_CUT, special)
    pairs = int(SMALL["hidden_size"] / SMALL["num_attention_heads"] * 0.75) // 2
    config = transformers.Phi3Config(
        **SMALL,
        vocab_size=320,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0 + 0.1 * pair for pair in range(pairs)],
            "long_factor": [1.0 + 0.5 * pair for pair in range(pairs)],
        },
        tie_word_embeddings=True,
    )
    settings = {
        "bos_token": GPT2_END,
        "eos_token": GPT2_END,
        "tokenizer_class": "GPT2Tokenizer",
    }
    write_checkpoint(folder, config, tokenizer, settings, "<|end|>")


def make_granite(folder: Path) -> None:
    tokenizer = small_tokenizer("digits", GRANITE_SPECIAL)
    config = transformers.GraniteConfig(
        **SMALL,
        **GRANITE,
        attention_bias=True,
        mlp_bias=True,
    )
    write_checkpoint(folder, config, tokenizer, GPT2_ENDS, "<|end_of_role|>")


def make_granite_moe(folder: Path) -> None:
    tokenizer = small_tokenizer("digits", GRANITE_SPECIAL)
    config = transformers.GraniteMoeSharedConfig(
        **{**SMALL, "intermediate_size": 32},
        **GRANITE,
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=48,
    )
    write_checkpoint(folder, config, tokenizer, GPT2_ENDS, "<|end_of_role|>")


def make_granite4(folder: Path) -> None:
    tokenizer = small_tokenizer(LLAMA3_CUT, GRANITE_SPECIAL)
    config = transformers.GraniteMoeHybridConfig(
        **SMALL,
        **GRANITE,
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=80,
        layer_types=["attention"] * 2,
        position_embedding_type="rope",
    )
    write_checkpoint(folder, config, tokenizer, GPT2_ENDS, "<|end_of_role|>")


def make_smollm3(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_end|>"]
    tokenizer = small_tokenizer(LLAMA3_CUT, special, ignore_merges=True)
    config = transformers.SmolLM3Config(
        **{**SMALL, "num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 64},
        vocab_size=320,
        bos_token_id=tokenizer.token_to_id("<|begin_of_text|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_end|>")


def make_olmo2(folder: Path) -> None:
    tokenizer = small_tokenizer(LLAMA3_CUT, [GPT2_END, "<|pad|>"])
    config = transformers.Olmo2Config(
        **SMALL,
        vocab_size=320,
        eos_token_id=tokenizer.token_to_id(GPT2_END),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
    )
    settings = {"bos_token": GPT2_END, "eos_token": GPT2_END, "pad_token": "<|pad|>"}
    write_checkpoint(folder, config, tokenizer, settings, GPT2_END)


def make_olmo3(folder: Path) -> None:
    tokenizer = small_tokenizer(LLAMA3_CUT, [GPT2_END, "<|pad|>"])
    config = transformers.Olmo3Config(
        **{**SMALL, "num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 64},
        vocab_size=320,
        eos_token_id=tokenizer.token_to_id(GPT2_END),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
        sliding_window=16,
        rope_parameters={
            FULL: {
                "rope_type": "yarn",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "attention_factor": 1.3,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
            SLIDING: {"rope_type": "default", "rope_theta": 500000.0},
        },
    )
    settings = {"bos_token": GPT2_END, "eos_token": GPT2_END, "pad_token": "<|pad|>"}
    write_checkpoint(folder, config, tokenizer, settings, GPT2_END)
