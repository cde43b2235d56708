"""The reference checkpoints of Llamas, and of those that llama.cpp takes for Llamas."""

from __future__ import annotations

from pathlib import Path

import transformers
from reference_tokenizers import (
    GPT2_END,
    LLAMA3_CHAT,
    LLAMA3_CUT,
    QWEN2_CUT,
    TEKKEN_CUT,
    begin_with,
    byte_level,
    sentencepiece_model,
    sentencepiece_tokenizer,
)
from reference_writer import write_checkpoint
from tokenizers import processors

SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}


def make_llama3(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start|>", "<|eot_id|>"]
    tokenizer = byte_level(LLAMA3_CUT, special, size=640, ignore_merges=True)
    begin_with(tokenizer, special[0])
    config = transformers.LlamaConfig(
        **SHAPE,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id(special[0]),
        eos_token_id=tokenizer.token_to_id(special[1]),
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    settings = {"bos_token": special[0], "eos_token": special[1], "chat_template": LLAMA3_CHAT}
    write_checkpoint(folder, config, tokenizer, settings, "<|eot_id|>")


def make_llama2(folder: Path) -> None:
    model = sentencepiece_model(640)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    # One more embedding than tokens, as padded checkpoints have.
    config = transformers.LlamaConfig(
        **{**SHAPE, "num_key_value_heads": 4},
        vocab_size=641,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        attention_bias=True,
        mlp_bias=True,
    )
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": {"content": "<s>", "normalized": False},
        "eos_token": {"content": "</s>", "normalized": False},
        "unk_token": {"content": "<unk>", "normalized": False},
        "tokenizer_class": "LlamaTokenizer",
    }
    write_checkpoint(folder, config, sentencepiece_tokenizer(model), settings, "</s>")


def make_mistral(folder: Path) -> None:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    tokenizer = byte_level(TEKKEN_CUT, special, size=640, ignore_merges=True)
    begin_with(tokenizer, "<s>")
    config = transformers.MistralConfig(
        **SHAPE,
        head_dim=32,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        sliding_window=None,
        tie_word_embeddings=False,
    )
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_checkpoint(folder, config, tokenizer, settings, "[INST]")


def make_qwen2(folder: Path) -> None:
    special = [GPT2_END, "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(QWEN2_CUT, special, size=640, ignore_merges=False, nfc=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    config = transformers.Qwen2Config(
        **SHAPE,
        vocab_size=656,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=True,
    )
    settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_end|>")


def make_qwen3(folder: Path) -> None:
    special = [GPT2_END, "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(QWEN2_CUT, special, size=640, ignore_merges=False, nfc=True)
    config = transformers.Qwen3Config(
        **SHAPE,
        head_dim=48,
        vocab_size=640,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        tie_word_embeddings=False,
    )
    settings = {"eos_token": "<|im_end|>", "pad_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, "<|im_start|>", shard_size="200KB")


def make_gpt2_llama(folder: Path) -> None:
    tokenizer = byte_level(None, [GPT2_END], size=512, ignore_merges=False)
    config = transformers.LlamaConfig(
        **SHAPE,
        vocab_size=512,
        bos_token_id=tokenizer.token_to_id(GPT2_END),
        eos_token_id=tokenizer.token_to_id(GPT2_END),
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    )
    settings = {"bos_token": GPT2_END, "eos_token": GPT2_END}
    write_checkpoint(folder, config, tokenizer, settings, GPT2_END)
