"""WordPiece (BERT): words are spelt from the longest pieces there are.

llama.cpp writes pieces that begin a word with a mark of the space before them, and those within
a word, BERT's ``##``, without (``llm_tokenizer_wpm``). It cleans and cuts text as
``BertNormalizer`` and ``BertPreTokenizer`` do.
"""

from __future__ import annotations

from collections.abc import Iterator

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.gguf_writer import Entry, flag
from packager.quantize.source import Documents
from packager.quantize.tokenizer.pretokenizers import pretokenizer_steps
from packager.quantize.tokenizer.vocabulary import (
    SPACE_MARK,
    Kind,
    Slots,
    Vocabulary,
    added_tokens,
    base_tokens,
    text_kinds,
)

_WITHIN = "##"


def wordpiece_vocabulary(tokenizer: Fields, documents: Documents, size: int) -> Vocabulary:
    """The vocabulary of a WordPiece ``tokenizer.json``, filled up to ``size`` tokens.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    model = tokenizer.mapping("model")
    _check_plain(tokenizer, model)
    added = added_tokens(documents)
    apart = {token.content for token in added}
    slots = Slots(size)
    slots.put_base(
        {
            token if token in apart else _marked(token): number
            for token, number in base_tokens(model).items()
        },
        Kind.NORMAL,
        model.where,
    )
    slots.put_added(added)
    slots.check_distinct(tokenizer.where)
    return Vocabulary(
        model="bert",
        pre="default",
        tokens=tuple(slots.tokens),
        kinds=tuple(slots.kinds),
        notes=tuple(slots.notes),
        entries=tuple(_entries(tokenizer, documents)),
    )


def _marked(token: str) -> str:
    return token[len(_WITHIN) :] if token.startswith(_WITHIN) else SPACE_MARK + token


def _check_plain(tokenizer: Fields, model: Fields) -> None:
    """Refuse what llama.cpp does in its own way."""
    if model.text("continuing_subword_prefix", _WITHIN) != _WITHIN:
        raise UsageError(f"{model.place('continuing_subword_prefix')}: llama.cpp knows {_WITHIN}")
    steps = [step.text("type") for step in pretokenizer_steps(tokenizer)]
    normalizer = tokenizer.mapping("normalizer")
    plain = (
        normalizer.text("type") == "BertNormalizer"
        and normalizer.flag("clean_text", True)
        and normalizer.flag("handle_chinese_chars", True)
        and steps == ["BertPreTokenizer"]
    )
    if not plain:
        raise UsageError(
            f"{tokenizer.where}: llama.cpp cleans and cuts text as BertNormalizer and "
            "BertPreTokenizer do, this tokenizer otherwise",
            hint="use `format: safetensors`",
        )


def _entries(tokenizer: Fields, documents: Documents) -> Iterator[Entry]:
    normalizer = tokenizer.mapping("normalizer")
    lowercase = normalizer.flag("lowercase", True)
    strips = normalizer.flag("strip_accents") if normalizer.has("strip_accents") else lowercase
    yield flag("tokenizer.ggml.normalizer.lowercase", lowercase)
    yield flag("tokenizer.ggml.normalizer.strip_accents", strips)
    yield text_kinds(documents)
