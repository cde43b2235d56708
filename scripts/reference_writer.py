"""Writes one reference checkpoint, and transformers' answers to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from reference_tokenizers import TEXT
from tokenizers import Tokenizer


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give biases and norms values too: transformers leaves them at 0 and 1."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            # A Gemma multiplies by 1 + weight.
            center = 0.0 if name.endswith("bias") or "Gemma" in type(model).__name__ else 1.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(center + 0.25 * noise)
        parameter.data.copy_(parameter.data.to(torch.bfloat16).to(torch.float32))


def write_checkpoint(
    folder: Path,
    config: transformers.PretrainedConfig,
    tokenizer: Tokenizer,
    tokenizer_config: dict[str, object],
    special: str,
    *,
    shard_size: str = "1GB",
    prepare: Callable[[torch.nn.Module], None] | None = None,
) -> None:
    """Write one checkpoint, and transformers' answers to it. ``prepare`` changes its weights."""
    torch.manual_seed(20261)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, torch.Generator().manual_seed(20262))
    if prepare is not None:
        prepare(model)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config)

    text = TEXT.format(special=special)
    tokens = tokenizer.encode(text).ids
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float().numpy()
    positions = [0, 1, 2, 7, 20, 41, len(tokens) // 2, len(tokens) - 1]
    np.save(folder / "reference.npy", logits[positions])
    write_json(
        folder / "reference.json",
        {
            "text": text,
            "tokens": tokens,
            "positions": positions,
            "made_with": made_with(),
        },
    )
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.name}: {len(tokens)} tokens, {size} bytes")


def made_with() -> dict[str, str]:
    """The versions that an answer may depend on."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
