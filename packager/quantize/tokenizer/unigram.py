"""SentencePiece's Unigram (XLM-RoBERTa): the likeliest way to cut a text into pieces.

llama.cpp normalizes text by the same table of replacements (``llm_tokenizer_ugm``), which
``tokenizer.json`` holds as ``precompiled_charsmap``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields
from packager.quantize.gguf_writer import Entry, flag, octets
from packager.quantize.source import Documents
from packager.quantize.tokenizer.pretokenizers import pretokenizer_steps
from packager.quantize.tokenizer.vocabulary import (
    SPACE_MARK,
    Kind,
    Slots,
    Vocabulary,
    added_tokens,
    text_kinds,
)

_SPACES = {"Regex": " {2,}"}


@dataclass(frozen=True)
class _Normalizing:
    """``merges_spaces``: however many there are count as one, and none at the ends."""

    replacements: bytes
    merges_spaces: bool
    adds_space_prefix: bool


def unigram_vocabulary(tokenizer: Fields, documents: Documents, size: int) -> Vocabulary:
    """The vocabulary of a Unigram ``tokenizer.json``, filled up to ``size`` tokens.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    model = tokenizer.mapping("model")
    if model.flag("byte_fallback", False):
        raise UsageError(f"{model.place('byte_fallback')}: llama.cpp has none for Unigram")
    normalizing = _normalizing(tokenizer)
    unknown = model.integer("unk_id")
    slots = Slots(size)
    for number, (piece, score) in enumerate(_pieces(model)):
        if number >= size:
            raise MalformedError(
                f"{model.where}: more than {size} tokens, which the model has (vocab_size in "
                "config.json)"
            )
        slots.put(number, piece, Kind.UNKNOWN if number == unknown else Kind.NORMAL, score)
    slots.put_added(added_tokens(documents))
    if unknown < size:
        slots.kinds[unknown] = Kind.UNKNOWN
    slots.check_distinct(tokenizer.where)
    return Vocabulary(
        model="t5",
        pre="default",
        tokens=tuple(slots.tokens),
        kinds=tuple(slots.kinds),
        scores=tuple(slots.scores),
        adds_space_prefix=normalizing.adds_space_prefix,
        notes=tuple(slots.notes),
        entries=(
            flag("tokenizer.ggml.remove_extra_whitespaces", normalizing.merges_spaces),
            *_replacement_entries(normalizing.replacements),
            text_kinds(documents),
        ),
    )


def _pieces(model: Fields) -> Iterator[tuple[str, float]]:
    for index, item in enumerate(model.items("vocab")):
        if (
            not isinstance(item, list)
            or len(item) != 2
            or not isinstance(item[0], str)
            or isinstance(item[1], bool)
            or not isinstance(item[1], (int, float))
            or not math.isfinite(item[1])
            or abs(item[1]) > 1e30
        ):
            raise model.refuse(f"vocab[{index}]", "expected a piece and its score")
        yield item[0], float(item[1])


def _normalizing(tokenizer: Fields) -> _Normalizing:
    replacements, merges_spaces, adds_space_prefix = b"", False, False
    for step in (*_normalizers(tokenizer), *pretokenizer_steps(tokenizer)):
        kind = step.text("type")
        if kind == "Precompiled":
            replacements = step.base64("precompiled_charsmap")
        elif kind == "WhitespaceSplit" or (
            kind == "Replace" and step.values.get("pattern") == _SPACES
        ):
            merges_spaces = True
        elif kind == "Metaspace" and step.text("replacement", SPACE_MARK) == SPACE_MARK:
            scheme = step.optional_text("prepend_scheme")
            adds_space_prefix = step.flag("add_prefix_space", True) and scheme != "never"
        else:
            raise UsageError(
                f"{step.where}: llama.cpp does not treat text by this {kind}",
                hint="use `format: safetensors`",
            )
    return _Normalizing(replacements, merges_spaces, adds_space_prefix)


def _normalizers(tokenizer: Fields) -> tuple[Fields, ...]:
    if not tokenizer.has("normalizer"):
        return ()
    outer = tokenizer.mapping("normalizer")
    return tuple(outer.mappings("normalizers")) if outer.text("type") == "Sequence" else (outer,)


def _replacement_entries(replacements: bytes) -> Iterator[Entry]:
    if replacements:
        yield octets("tokenizer.ggml.precompiled_charsmap", replacements)
