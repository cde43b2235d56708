"""The tokenizer's part of the GGUF metadata."""

from __future__ import annotations

from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.gguf_writer import Entry, flag, float32s, int32s, text, texts, uint32
from packager.quantize.source import Documents
from packager.quantize.tokenizer.bpe import byte_level_vocabulary
from packager.quantize.tokenizer.sentencepiece import sentencepiece_vocabulary
from packager.quantize.tokenizer.special import SpecialTokens, special_tokens
from packager.quantize.tokenizer.stripping import find_stripping
from packager.quantize.tokenizer.unigram import unigram_vocabulary
from packager.quantize.tokenizer.vocabulary import Vocabulary, added_tokens
from packager.quantize.tokenizer.wordpiece import wordpiece_vocabulary


@dataclass(frozen=True)
class TokenizerEntries:
    """The metadata, and notes on what could not be carried over.

    ``strips_as_phi3``: special tokens take the white space after them, as those of Phi-3 do.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    strips_as_phi3: bool


def tokenizer_entries(documents: Documents, size: int) -> TokenizerEntries:
    """The metadata of the model's tokenizer, for an embedding of ``size`` rows.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    vocabulary = _vocabulary(documents, size)
    special = special_tokens(documents, vocabulary)
    entries = (*_vocabulary_entries(vocabulary), *_special_entries(special))
    stripping = find_stripping(added_tokens(documents))
    return TokenizerEntries(entries, (*vocabulary.notes, *stripping.notes), stripping.is_as_phi3)


def _vocabulary(documents: Documents, size: int) -> Vocabulary:
    if documents.tokenizer is None:
        return sentencepiece_vocabulary(documents, size)
    tokenizer = Fields.of(dict(documents.tokenizer), "tokenizer.json")
    model = tokenizer.mapping("model")
    if (kind := model.text("type", "BPE")) == "WordPiece":
        return wordpiece_vocabulary(tokenizer, documents, size)
    if kind == "Unigram":
        return unigram_vocabulary(tokenizer, documents, size)
    if kind != "BPE":
        raise UsageError(
            f"{model.place('type')}: {kind} is not converted (known: BPE, Unigram, WordPiece)",
            hint="use `format: safetensors`",
        )
    if model.flag("byte_fallback", False):
        return sentencepiece_vocabulary(documents, size)
    return byte_level_vocabulary(tokenizer, documents, size)


def _vocabulary_entries(vocabulary: Vocabulary) -> list[Entry]:
    entries = [
        text("tokenizer.ggml.model", vocabulary.model),
        text("tokenizer.ggml.pre", vocabulary.pre),
        texts("tokenizer.ggml.tokens", vocabulary.tokens),
        int32s("tokenizer.ggml.token_type", vocabulary.kinds),
    ]
    if vocabulary.scores is not None:
        entries.append(float32s("tokenizer.ggml.scores", vocabulary.scores))
    if vocabulary.merges is not None:
        entries.append(texts("tokenizer.ggml.merges", vocabulary.merges))
    if vocabulary.adds_space_prefix is not None:
        entries.append(flag("tokenizer.ggml.add_space_prefix", vocabulary.adds_space_prefix))
    return [*entries, *vocabulary.entries]


def _special_entries(special: SpecialTokens) -> list[Entry]:
    entries = [uint32(f"tokenizer.ggml.{key}", value) for key, value in special.numbers.items()]
    entries.append(flag("tokenizer.ggml.add_bos_token", special.adds_bos))
    entries.append(flag("tokenizer.ggml.add_eos_token", special.adds_eos))
    named = sorted(name for name in special.templates if name != "default")
    if named:
        entries.append(texts("tokenizer.chat_templates", named))
    entries += [text(f"tokenizer.chat_template.{name}", special.templates[name]) for name in named]
    if "default" in special.templates:
        entries.append(text("tokenizer.chat_template", special.templates["default"]))
    return entries
