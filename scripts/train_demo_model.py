"""Train the embedded demo model: a small Llama that speaks like the King James Bible.

Needs torch, transformers and tokenizers, which nothing else here needs; CI does not run it. The
text is what Debian's package ``bible-kjv`` prints, one verse a line::

    apt install bible-kjv
    bible -f gen1:1-rev22:21 > kjv.txt
    python scripts/train_demo_model.py kjv.txt packager/demo

It writes a folder like any on the hub, ``tiny-kjv``, and the text that the model never saw,
``held-out.txt``. It writes both now and then, so that there is a model to use at any moment.
A run is fixed by its seed and its number of steps, on one kind of CPU with one torch.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from demo_model_card import Measure, Outcome, write_card
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy, dropout
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 1611
THREADS = 2
VOCABULARY = 2048
LAYERS = 3
CONTEXT = 512  # tokens, in training and in use
BATCH = 8
STEPS = 2000
PEAK_RATE = 2e-3
LAST_RATE = 0.05  # of the peak
WARM_UP = 100  # steps
WEIGHT_DECAY = 0.3
DROPOUT = 0.1
SAVE_EVERY = 100  # steps

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
# The words of Llama 3's tokenizer.json, so that llama.cpp knows this one as "llama-bpe".
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VERSE = re.compile(r"([1-3]?[A-Za-z]+)(\d+):\d+ (.*)")
HELD_OUT_BOOKS = ("Ruth", "Jonah", "Phi")  # two tales and a letter (to the Philippians)
PROMPTS = ("In the beginning", "And the king said unto", "Blessed are")
ANSWER = 48  # tokens
FOLDER = "tiny-kjv"
SETTINGS = {
    "layers": LAYERS,
    "vocabulary": VOCABULARY,
    "context": CONTEXT,
    "batch": BATCH,
    "seed": SEED,
    "threads": THREADS,
    "begin": BEGIN,
    "end": END,
    "answer": ANSWER,
}


@dataclass(frozen=True)
class Chapter:
    """A chapter of a book, in verses without numbers."""

    book: str
    verses: tuple[str, ...]

    @property
    def prose(self) -> str:
        """The verses as one paragraph."""
        return " ".join(self.verses)


@dataclass(frozen=True)
class Tokens:
    """Chapters in a row, each with its end; a window may open where a verse does."""

    ids: torch.Tensor  # int64, (n,)
    openings: torch.Tensor  # int64, (verses,)


def read_chapters(path: Path) -> list[Chapter]:
    """Gather the verses of each chapter."""
    chapters: dict[tuple[str, str], list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if verse := VERSE.fullmatch(line):
            book, chapter, words = verse.groups()
            chapters.setdefault((book, chapter), []).append(words.strip())
    return [Chapter(book, tuple(verses)) for (book, _), verses in chapters.items()]


def train_tokenizer(chapters: list[Chapter]) -> Tokenizer:
    """A byte-level BPE tokenizer of Llama 3's shape."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
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
    tokenizer.train_from_iterator([chapter.prose for chapter in chapters], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B:1",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    return tokenizer


def tokenize(tokenizer: Tokenizer, chapters: list[Chapter]) -> Tokens:
    """All chapters in a row. No word of Llama 3's spans two verses: each is encoded by itself."""
    ids: list[int] = []
    openings: list[int] = []
    for chapter in chapters:
        for number, verse in enumerate(chapter.verses):
            openings.append(len(ids))
            text = f" {verse}" if number else verse
            ids += tokenizer.encode(text, add_special_tokens=False).ids
        ids.append(tokenizer.token_to_id(END))
    return Tokens(torch.tensor(ids), torch.tensor(openings))


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Every matrix takes a multiple of 256 inputs, as llama.cpp's K types need."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
    )
    return LlamaForCausalLM(config)


def add_dropout(model: LlamaForCausalLM) -> None:
    """Drop some of what enters the residual stream while training: Llama itself drops nothing."""

    def drop(module: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return dropout(output, DROPOUT, module.training)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)


def training_windows(tokens: Tokens) -> torch.Tensor:
    """A batch of windows that open with verses drawn at random. int64, (BATCH, CONTEXT)."""
    usable = tokens.openings[tokens.openings <= len(tokens.ids) - CONTEXT]
    starts = usable[torch.randint(len(usable), (BATCH,))].tolist()
    return torch.stack([tokens.ids[start : start + CONTEXT] for start in starts])


def nats(model: LlamaForCausalLM, windows: torch.Tensor) -> torch.Tensor:
    """What each token of ``windows`` costs, each window read after a begin. float32, (tokens,)."""
    begin = torch.full((len(windows), 1), model.config.bos_token_id)
    logits = model(torch.cat([begin, windows[:, :-1]], dim=1)).logits
    return cross_entropy(logits.flatten(0, 1), windows.flatten(), reduction="none")


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to the last rate."""
    if step <= WARM_UP:
        return PEAK_RATE * step / WARM_UP
    cosine = math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP))
    return PEAK_RATE * (LAST_RATE + (1 - LAST_RATE) * (1 + cosine) / 2)


def new_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW that lets matrices decay, and leaves the norms' vectors alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )


def train_step(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, tokens: Tokens, rate: float
) -> float:
    """One batch, one step; gives the batch's loss. In bf16 it takes three quarters of the time."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        loss = nats(model, training_windows(tokens)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def as_saved(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with its weights rounded to bf16, in float32, ready for use."""
    return copy.deepcopy(model).to(torch.bfloat16).float().eval()


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokens: Tokens, text: str) -> Measure:
    """The cost of the text, over windows that stand side by side."""
    windows = tokens.ids.split(CONTEXT)
    total = sum(nats(model, window[None]).double().sum().item() for window in windows)
    return Measure(total, len(tokens.ids), len(text.split()), len(text.encode()))


def continuation(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> str:
    """What the model says after ``prompt``, greedily."""
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    answer = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER, do_sample=False
    )
    return str(tokenizer.decode(answer[0, ids.shape[1] :].tolist()))


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write what a hub folder holds for programs: weights, configuration, tokenizer."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": model.config.bos_token_id,
            "do_sample": False,
            "eos_token_id": model.config.eos_token_id,
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": BEGIN,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": CONTEXT,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write JSON as the hub's folders have it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read, train, and now and then measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="the verses, one a line")
    parser.add_argument("output", type=Path, help=f"where {FOLDER}/ and held-out.txt go")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)

    chapters = read_chapters(arguments.text)
    seen = [chapter for chapter in chapters if chapter.book not in HELD_OUT_BOOKS]
    unseen = [chapter for chapter in chapters if chapter.book in HELD_OUT_BOOKS]
    tokenizer = train_tokenizer(seen)
    tokens, held_out = tokenize(tokenizer, seen), tokenize(tokenizer, unseen)
    held_out_text = "\n\n".join(chapter.prose for chapter in unseen) + "\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "held-out.txt").write_text(held_out_text, encoding="utf-8")

    model = new_model(tokenizer)
    add_dropout(model)
    optimizer = new_optimizer(model)
    begun = time.monotonic()
    for step in range(1, arguments.steps + 1):
        loss = train_step(model, optimizer, tokens, rate_at(step, arguments.steps))
        if step % SAVE_EVERY and step != arguments.steps:
            continue
        saved = as_saved(model)
        outcome = Outcome(
            step=step,
            minutes=(time.monotonic() - begun) / 60,
            parameters=model.num_parameters(),
            trained_on=len(tokens.ids),
            epochs=step * BATCH * CONTEXT / len(tokens.ids),
            held_out=measure(saved, held_out, held_out_text),
            samples={prompt: continuation(saved, tokenizer, prompt) for prompt in PROMPTS},
        )
        save(model, tokenizer, arguments.output / FOLDER)
        write_card(arguments.output / FOLDER, outcome, SETTINGS)
        print(
            f"step {step}, {outcome.minutes:.1f} minutes: the last batch"
            f" {math.exp(loss):.2f} per token, held out {outcome.held_out.per_token:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
