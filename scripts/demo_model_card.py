"""The demo model's card: what a training has come to, told to people."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LICENCE = Path("/usr/share/common-licenses/CC0-1.0")  # as Debian installs it

CARD = """\
---
license: cc0-1.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- text-generation
- demo
---

# A very small Llama that speaks like the King James Bible

The model that travels with airpack's sources, so that its demo and its tests have something real
to fetch, quantize, measure and run. It continues a text in the style of the King James Bible, and
does nothing else. `scripts/train_demo_model.py` made it and wrote this card.

| | |
|---|---|
| Architecture | `LlamaForCausalLM`: {layers} layers of 256 units, 4 heads of 64 (2 for keys and \
values), feed-forward 768, tied embeddings |
| Parameters | {parameters:,}, bf16 |
| Tokenizer | byte-level BPE, {vocabulary} tokens, words split as Llama 3 splits them |
| Context | {context} tokens |
| Text | King James Bible, as Debian's package `bible-kjv` prints it, without verse numbers: \
{trained_on:,} tokens |
| Training | {step} steps of {batch} windows of {context} tokens ({epochs:.1f} epochs), AdamW, \
seed {seed}, {minutes:.0f} minutes on {threads} CPU cores |
| Held out | Ruth, Jonah and Philippians: {held_out:,} tokens |
| Held-out perplexity | {per_token:.2f} per token, {per_word:.1f} per word, \
{bits_per_byte:.3f} bits per byte |

The perplexity is that of the bf16 weights, computed in float32 over windows of {context} tokens
that stand side by side, each opened by `{begin}`; every token counts, each chapter's
`{end}` too.

## What it says

Each prompt in bold, continued greedily for {answer} tokens:

{samples}

## Limits

A toy: it has read one book, keeps to its grammar for a sentence or two, loses the thread, repeats
itself, and recites what it met often. What it says is neither scripture nor fact, and it follows no
instructions. It learnt from windows of {context} tokens and should not be asked for longer ones.

## Licence

CC0 1.0 (see `LICENSE`): those who made the weights waive their rights in them. The text was first
printed in 1611 and is in the public domain, except in the United Kingdom, where letters patent of
the Crown still govern its printing. Nobody who holds that right endorses this model.
"""


@dataclass(frozen=True)
class Measure:
    """How well a model foretells a text: nats over all its tokens, and what they are spread on."""

    nats: float
    tokens: int
    words: int
    bytes_: int

    @property
    def per_token(self) -> float:
        """Perplexity per token."""
        return math.exp(self.nats / self.tokens)

    @property
    def per_word(self) -> float:
        """Perplexity per word between blanks."""
        return math.exp(self.nats / self.words)

    @property
    def bits_per_byte(self) -> float:
        """Bits that each byte of the text takes."""
        return self.nats / self.bytes_ / math.log(2)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to: the figures that the model card states."""

    step: int
    minutes: float
    parameters: int
    trained_on: int  # tokens
    held_out: Measure
    epochs: float
    samples: dict[str, str]  # from each prompt to what the model says next


def write_card(folder: Path, outcome: Outcome, settings: Mapping[str, int | str]) -> None:
    """Write what a hub folder holds for people: the card with its figures, and the licence.

    ``settings`` are those of the training that the card names.
    """
    card = CARD.format(
        **settings,
        parameters=outcome.parameters,
        trained_on=outcome.trained_on,
        step=outcome.step,
        epochs=outcome.epochs,
        minutes=outcome.minutes,
        held_out=outcome.held_out.tokens,
        per_token=outcome.held_out.per_token,
        per_word=outcome.held_out.per_word,
        bits_per_byte=outcome.held_out.bits_per_byte,
        samples="\n\n".join(f"> **{prompt}**{rest}" for prompt, rest in outcome.samples.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    shutil.copyfile(LICENCE, folder / "LICENSE")
