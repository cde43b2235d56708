"""Byte-level BPE (GPT-2, Llama 3, Qwen, Tekken): tokens are spelt in 256 printable characters."""

from __future__ import annotations

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.source import Documents
from packager.quantize.tokenizer.pretokenizers import pretokenizer_name
from packager.quantize.tokenizer.vocabulary import (
    Kind,
    Slots,
    Vocabulary,
    added_tokens,
    base_tokens,
    merge_pairs,
)


def byte_level_vocabulary(tokenizer: Fields, documents: Documents, size: int) -> Vocabulary:
    """The vocabulary of ``tokenizer.json``, filled up to ``size`` tokens.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    model = tokenizer.mapping("model")
    _check_plain(tokenizer, model)
    slots = Slots(size)
    slots.put_base(base_tokens(model), Kind.NORMAL, tokenizer.where)
    slots.put_added(added_tokens(documents))
    slots.check_distinct(tokenizer.where)
    return Vocabulary(
        model="gpt2",
        pre=pretokenizer_name(tokenizer, ignores_merges=model.flag("ignore_merges", False)),
        tokens=tuple(slots.tokens),
        kinds=tuple(slots.kinds),
        merges=tuple(f"{left} {right}" for left, right in merge_pairs(model)),
        notes=tuple(slots.notes),
    )


def _check_plain(tokenizer: Fields, model: Fields) -> None:
    """Refuse what llama.cpp would silently leave out."""
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.values.get(key):
            raise UsageError(f"{model.place(key)}: llama.cpp does not support it")
    # NFC: engines are given composed text already, as nearly all text is.
    kind = tokenizer.mapping("normalizer").text("type") if tokenizer.has("normalizer") else "NFC"
    if kind != "NFC":
        raise UsageError(
            f"{tokenizer.place('normalizer')}: llama.cpp does not normalize text by {kind}",
            hint="use `format: safetensors`",
        )
