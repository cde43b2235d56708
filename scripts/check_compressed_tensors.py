"""Make compressed-tensors variants of checkpoints, load them with transformers, and compare.

    pip install torch transformers compressed-tensors
    python scripts/check_compressed_tensors.py [--json] [--text FILE] CHECKPOINT...

Runs on the CPU. For each scheme that the checkpoint has rows for: the mean Kullback-Leibler
divergence of its next-token probabilities from the original's, in nats, and how often both have the
same first choice, over the first tokens of a text (of an encoder: how near the cosine of its mean
vector is to 1). Each is loaded twice: as it is, so that activations are quantized where the scheme
says so, and widened again. Fails where transformers misses a tensor, or finds one that it does not
expect.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from compressed_tensors.quantization import QuantizationConfig
from tokenizers import Tokenizer
from transformers.utils.quantization_config import CompressedTensorsConfig

from packager.errors import UsageError
from packager.progress import Silent
from packager.quantize.compressed.pipeline import write_shards
from packager.quantize.compressed.plan import plan_variant
from packager.quantize.compressed.schemes import SCHEMES, Scheme

HELD_OUT = Path(__file__).parents[1] / "packager" / "demo" / "held-out.txt"
TOKENS = 300


def write_variant(source: Path, scheme: Scheme, folder: Path) -> frozenset[str]:
    """The checkpoint ``source`` in ``scheme``, and all that is beside its weights.

    Returns the names of what is quantized.
    """
    files = {path.name: path for path in source.iterdir() if path.is_file()}
    plan = plan_variant(files, scheme)
    folder.mkdir()
    for name, path in files.items():
        if ".safetensors" not in name:
            shutil.copyfile(path, folder / name)
    for name, data in plan.documents.items():
        (folder / name).write_bytes(data)
    for shard in plan.shards:
        with Silent().task("", 0) as task:
            write_shards({folder / shard.name: shard}, task=task)
    return plan.choice.quantized


def load(folder: Path, **options: object) -> torch.nn.Module:
    """The model in ``folder``; fails unless its tensors are exactly those that there should be."""
    config = json.loads((folder / "config.json").read_text())
    is_decoder = config["architectures"][0].endswith("CausalLM")
    kind = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModel
    model, told = kind.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **options
    )
    faults = {fault: list(names)[:3] for fault, names in told.items() if names}
    if faults:
        raise SystemExit(f"{folder}: {faults}")
    return model.eval()


def answers(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """Logits (tokens, vocabulary), or of an encoder the mean vector (1, width)."""
    with torch.no_grad():
        out = model(torch.tensor([tokens]))
    return out.logits[0] if hasattr(out, "logits") else out.last_hidden_state.mean(1)


def compare(original: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    if len(original) == 1:
        return {"cosine": torch.cosine_similarity(original, found).item()}
    theirs, ours = (torch.log_softmax(each.double(), -1) for each in (original, found))
    divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    same = (original.argmax(-1) == found.argmax(-1)).double().mean()
    return {"kl": divergence.item(), "same_first": same.item()}


def check(source: Path, text: str) -> Iterator[dict[str, object]]:
    """One result for each scheme and way of loading."""
    model = load(source)
    room = model.config.get_text_config().max_position_embeddings - 8
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokens = tokenizer.encode(text).ids[: min(TOKENS, room)]
    original = answers(model, tokens)
    with tempfile.TemporaryDirectory() as work:
        for scheme in SCHEMES.values():
            folder = Path(work) / scheme.name
            subject: dict[str, object] = {"model": source.name, "scheme": scheme.name}
            try:
                quantized = write_variant(source, scheme, folder)
            except UsageError as error:
                yield subject | {"refused": error.message}
                continue
            if scheme.name == "W8A8" and any(".experts." in name for name in quantized):
                yield subject | {"refused": "transformers does not load experts in W8A8"}
                continue
            config = json.loads((folder / "config.json").read_text())
            QuantizationConfig.model_validate(config["quantization_config"])
            for widened in (False, True):
                options = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
                found = answers(load(folder, **(options if widened else {})), tokens)
                yield subject | {"widened": widened} | compare(original, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="a JSON document for each result")
    parser.add_argument("--text", type=Path, default=HELD_OUT)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    text = arguments.text.read_text(encoding="utf-8")[: TOKENS * 20]
    for checkpoint in arguments.checkpoints:
        for result in check(checkpoint, text):
            if arguments.json:
                print(json.dumps(result), flush=True)
                continue
            print("  ".join(f"{key} {_shown(value)}" for key, value in result.items()), flush=True)


def _shown(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
