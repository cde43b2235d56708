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
from packager.quantize.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerEntries:
    """The metadata, and notes on what could not be carried over."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def tokenizer_entries(documents: Documents, size: int) -> TokenizerEntries:
    """The metadata of the model's tokenizer, for an embedding of ``size`` rows.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    vocabulary = _vocabulary(documents, size)
    special = special_tokens(documents, vocabulary)
    entries = (*_vocabulary_entries(vocabulary), *_special_entries(special))
    return TokenizerEntries(entries, vocabulary.notes)


def _vocabulary(documents: Documents, size: int) -> Vocabulary:
    if documents.tokenizer is None:
        return sentencepiece_vocabulary(documents, size)
    tokenizer = Fields.of(dict(documents.tokenizer), "tokenizer.json")
    model = tokenizer.mapping("model")
    if (kind := model.text("type", "BPE")) != "BPE":
        raise UsageError(
            f"{model.place('type')}: {kind} is not converted (known: BPE)",
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
    return entries


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
