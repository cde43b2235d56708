"""Make small random LoRA adapters, and transformers' answers with them merged.

    pip install torch transformers tokenizers peft
    python scripts/make_adapter_references.py tests/references [NAME...]

Not run by CI: what it wrote is committed, and is a contract. Each adapter is for the checkpoint
of the same name that make_reference_checkpoints.py makes, and lies in adapters/NAME: PEFT's two
files as it saves them, and ``reference.npy``, as there, of the model whose weights are those of
the base and the adapter merged by PEFT, computed in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from reference_encoders import vector
from reference_writer import made_with, write_json

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What a name here says besides that of its base: what is peculiar to the adapter.
ADAPTERS: dict[str, tuple[dict[str, object], torch.dtype]] = {
    # The rows of q and k move on the way to GGUF; two ranks; the output.
    "llama3": (
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": [*ALL_LINEAR, "lm_head"],
            "rank_pattern": {"k_proj": 2},
        },
        torch.float32,
    ),
    # Two matrices of llama.cpp are one in transformers; stabilized ranks; alphas of their own.
    "granite4": (
        {
            "r": 3,
            "lora_alpha": 5,
            "use_rslora": True,
            "target_modules": ["q_proj", "v_proj", "input_linear", "output_linear"],
            "rank_pattern": {"layers.1.shared_mlp.input_linear": 5},
            "alpha_pattern": {"v_proj": 2.5},
        },
        torch.bfloat16,
    ),
    # Fused matrices; half precision, which is kept.
    "phi3": (
        {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj", "o_proj", "gate_up_proj"]},
        torch.float16,
    ),
    "bert": (
        {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value", "dense"]},
        torch.float32,
    ),
}


def make(name: str, root: Path) -> None:
    """Write one adapter, and the answers."""
    settings, dtype = ADAPTERS[name]
    base, folder = root / name, root / "adapters" / name
    encodes = name == "bert"
    loader = transformers.AutoModel if encodes else transformers.AutoModelForCausalLM
    model = loader.from_pretrained(base, dtype=torch.float32)
    if encodes:
        model.pooler = None  # llama.cpp has no use for it
    torch.manual_seed(20263)
    adapted = peft.get_peft_model(model, peft.LoraConfig(init_lora_weights=False, **settings))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            values = torch.randn(parameter.shape) * (0.5 / parameter.shape[1] ** 0.5)
            parameter.data.copy_(values.to(dtype).to(torch.float32))
    adapted.peft_config["default"].base_model_name_or_path = f"org/{name}"
    adapted.save_pretrained(folder, save_embedding_layers=False)
    store_as(folder / "adapter_model.safetensors", dtype)
    (folder / "README.md").unlink(missing_ok=True)

    reference = json.loads((base / "reference.json").read_text(encoding="utf-8"))
    merged = adapted.merge_and_unload().eval()
    answers = answer_vectors(merged, reference) if encodes else answer_logits(merged, reference)
    change = np.abs(answers - np.load(base / "reference.npy")).max()
    np.save(folder / "reference.npy", answers)
    write_json(folder / "reference.json", {"made_with": {**made_with(), "peft": peft.__version__}})
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: changes the answers by up to {change:.3g}, {size} bytes")


def store_as(path: Path, dtype: torch.dtype) -> None:
    """Rewrite the tensors, which hold nothing that ``dtype`` does not, in it."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def answer_logits(model: torch.nn.Module, reference: dict[str, list[int]]) -> np.ndarray:
    """Float32 (positions, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.tensor([reference["tokens"]])).logits[0].float().numpy()
    return logits[reference["positions"]]


def answer_vectors(model: torch.nn.Module, reference: dict[str, list[list[int]]]) -> np.ndarray:
    """Float32 (texts, width), of length 1."""
    return np.stack([vector(model, tokens, "mean") for tokens in reference["tokens"]])


def main() -> None:
    root, names = Path(sys.argv[1]), sys.argv[2:] or list(ADAPTERS)
    for name in names:
        make(name, root)


if __name__ == "__main__":
    main()
