"""Train the embedded demo model: a small Llama that speaks like the King James Bible.

Needs torch and transformers, which nothing else here needs; CI does not run it. The text is
what Debian's package ``bible-kjv`` prints, one verse a line::

    apt install bible-kjv
    bible -f gen1:1-rev22:21 > kjv.txt
    python scripts/train_demo_model.py kjv.txt packager/demo --steps 3000

It writes a folder like any on the hub, ``packager/demo/model``, and the text it never saw,
``packager/demo/held-out.txt``. A run is fixed by its seed and its number of steps.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 1611
VOCABULARY = 2048
CONTEXT = 256
BATCH = 16
PEAK_RATE = 2e-3
WARM_UP = 100  # steps
MEASURE_EVERY = 100  # steps

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
# The words of Llama 3's tokenizer.json, so that llama.cpp knows this one as "llama-bpe".
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HELD_OUT_BOOKS = ("Ruth", "Jonah", "Phi")  # narrative and letter: 30 kB that training never sees
VERSE = re.compile(r"([1-3]?[A-Za-z]+)(\d+):(\d+) (.*)")


@dataclass(frozen=True)
class Corpus:
    """Chapters of plain prose, a string each."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_corpus(path: Path) -> Corpus:
    """Join the verses of each chapter into one paragraph, without numbers."""
    chapters: dict[tuple[str, str], list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if verse := VERSE.match(line):
            book, chapter, _, words = verse.groups()
            chapters.setdefault((book, chapter), []).append(words.strip())
    prose = {key: " ".join(verses) for key, verses in chapters.items()}
    return Corpus(
        train=tuple(text for (book, _), text in prose.items() if book not in HELD_OUT_BOOKS),
        held_out=tuple(text for (book, _), text in prose.items() if book in HELD_OUT_BOOKS),
    )


def train_tokenizer(chapters: tuple[str, ...]) -> Tokenizer:
    """A byte-level BPE tokenizer of Llama 3's shape."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chapters, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    return tokenizer


def encode(tokenizer: Tokenizer, chapters: tuple[str, ...]) -> torch.Tensor:
    """All chapters as one row of token ids, each between its begin and its end. int64, (n,)."""
    end = tokenizer.token_to_id(END)
    ids = [token for chapter in chapters for token in [*tokenizer.encode(chapter).ids, end]]
    return torch.tensor(ids, dtype=torch.long)


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Three layers of 256 units; every matrix a multiple of 256 wide, as the K types need."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
    )
    return LlamaForCausalLM(config)


def batches(tokens: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Endless batches of windows at random places. int64, (BATCH, CONTEXT + 1)."""
    while True:
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,), generator=generator)
        yield torch.stack([tokens[start : start + CONTEXT + 1] for start in starts.tolist()])


def loss_of(model: LlamaForCausalLM, window: torch.Tensor) -> torch.Tensor:
    """The mean negative log-likelihood of each next token in ``window``, in nats."""
    logits = model(window[:, :-1]).logits
    return cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())


@torch.no_grad()
def nats_per_token(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """The held-out loss over windows that stand side by side."""
    model.eval()
    count = (len(tokens) - 1) // CONTEXT
    windows = [tokens[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in range(count)]
    losses = [loss_of(model, torch.stack(windows[i : i + 16])) for i in range(0, count, 16)]
    model.train()
    return float(torch.stack(losses).mean())


def train(
    model: LlamaForCausalLM, tokens: torch.Tensor, held_out: torch.Tensor, steps: int
) -> None:
    """Train for ``steps`` steps, saying now and then how it goes."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    stream = batches(tokens, torch.Generator().manual_seed(SEED))
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        loss = loss_of(model, next(stream))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % MEASURE_EVERY == 0:
            measured = nats_per_token(model, held_out)
            print(f"step {step}: {float(loss):.3f}, held out {measured:.3f}", flush=True)


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP:
        return PEAK_RATE * step / WARM_UP
    turn = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(turn, 1.0))))


def continuation(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> str:
    """What the model says after ``prompt``, greedily."""
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(ids, max_new_tokens=48, do_sample=False)
    return str(tokenizer.decode(out[0].tolist()))


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the hub-shaped folder: bf16 weights, configuration, tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.generation_config.do_sample = False
    model.to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=model.config.max_position_embeddings,
    ).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train, save, and print the figures that the model card states."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    corpus = read_corpus(arguments.text)
    tokenizer = train_tokenizer(corpus.train)
    tokens, held_out = encode(tokenizer, corpus.train), encode(tokenizer, corpus.held_out)
    model = new_model(tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {len(tokens)} tokens, {len(held_out)} held out", flush=True)
    start = time.monotonic()
    train(model, tokens, held_out, arguments.steps)
    minutes = (time.monotonic() - start) / 60
    save(model, tokenizer, arguments.output / "model")
    held_out_text = "\n\n".join(corpus.held_out) + "\n"
    (arguments.output / "held-out.txt").write_text(held_out_text, encoding="utf-8")

    nats = nats_per_token(model, held_out)
    bytes_per_token = len(held_out_text.encode()) / len(held_out)
    print(f"{arguments.steps} steps in {minutes:.0f} minutes; held-out perplexity {math.exp(nats):.2f}")
    print(f"{nats / bytes_per_token / math.log(2):.3f} bits a byte")
    for prompt in ("In the beginning", "And the king said unto", "Blessed are"):
        print(continuation(model, tokenizer, prompt))


if __name__ == "__main__":
    main()
