"""The reference checkpoints of gpt-oss: with experts in MXFP4, as published, and in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from reference_families import SMALL, small_tokenizer
from reference_tokenizers import GPT4O_CUT
from reference_writer import write_checkpoint, write_json
from safetensors.torch import load_file, save_file

MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BLOCK = 32


def make_gpt_oss_bf16(folder: Path) -> None:
    write(folder)


def make_gpt_oss(folder: Path) -> None:
    write(folder, prepare=round_experts)
    store_experts_in_mxfp4(folder)


def write(folder: Path, **how: object) -> None:
    special = ["<|startoftext|>", "<|return|>", "<|end|>"]
    tokenizer = small_tokenizer(GPT4O_CUT, special)
    config = transformers.GptOssConfig(
        **{**SMALL, "intermediate_size": 32},
        head_dim=16,
        vocab_size=320,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=16,
        bos_token_id=tokenizer.token_to_id("<|startoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|return|>"),
        pad_token_id=tokenizer.token_to_id("<|return|>"),
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
    )
    settings = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"}
    write_checkpoint(folder, config, tokenizer, settings, "<|end|>", **how)


def round_experts(model: torch.nn.Module) -> None:
    """Leave in the experts only what MXFP4 can hold."""
    for name, parameter in model.named_parameters():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            codes, scales = encode(parameter.data.transpose(1, 2))
            signs = 1.0 - 2.0 * (codes >= 8)
            values = signs * MAGNITUDES[codes % 8] * torch.exp2(scales[..., None] - 127.0)
            parameter.data.copy_(values.flatten(2).transpose(1, 2))


def encode(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, (experts, rows, columns // 32, 32), and scales, the same without the last."""
    blocks = matrix.reshape(*matrix.shape[:2], -1, BLOCK)
    powers = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2
    distances = (blocks.abs() * torch.exp2(-powers)[..., None])[..., None] - MAGNITUDES
    codes = distances.abs().argmin(-1) + 8 * (blocks < 0)
    return codes, powers + 127


def store_experts_in_mxfp4(folder: Path) -> None:
    """Write the experts as gpt-oss has them: two codes a byte, and scales apart."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        codes, scales = encode(tensors.pop(name).float().transpose(1, 2))
        pairs = codes[..., ::2] + 16 * codes[..., 1::2]
        tensors[f"{name}_blocks"] = pairs.to(torch.uint8).contiguous()
        tensors[f"{name}_scales"] = scales.to(torch.uint8).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"],
    }
    write_json(folder / "config.json", {**config, "quantization_config": quantization})
