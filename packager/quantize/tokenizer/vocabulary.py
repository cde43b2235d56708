"""The tokens of a model by number, each of a kind, and how text falls apart into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from packager.errors import MalformedError
from packager.format.fields import Fields
from packager.quantize.config import MAX_TEXT_KINDS
from packager.quantize.gguf_writer import Entry, uint32
from packager.quantize.source import Documents

# U+2581, which SentencePiece writes for a space.
SPACE_MARK = "\u2581"

# Characters; the longest tokens of published models, runs of spaces and dashes, have some hundred.
# Merges take time that grows with the square of it.
MAX_TOKEN_LENGTH = 1024


class Kind(IntEnum):
    """What a token is, with the numbers of llama.cpp and of SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """``model`` and ``pre`` are llama.cpp's names.

    ``scores`` are SentencePiece's, ``merges`` are BPE's; ``entries`` are further metadata;
    ``notes`` tell what was left out.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[Kind, ...]
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] | None = None
    adds_space_prefix: bool | None = None
    notes: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class AddedToken:
    """A token beside the trained ones, found in text before anything else is.

    ``strips``: transformers takes away the white space left or right of it.
    """

    number: int
    content: str
    special: bool
    strips: tuple[bool, bool] = (False, False)

    @property
    def kind(self) -> Kind:
        """Control tokens are never made from plain text; the others are.

        Some repositories forget to mark their ``<|control|>`` tokens as special.
        """
        looks_special = (self.content.startswith("<|") and self.content.endswith("|>")) or (
            self.content.startswith("<\uff5c") and self.content.endswith("\uff5c>")
        )
        return Kind.CONTROL if self.special or looks_special else Kind.USER_DEFINED


@dataclass
class Slots:
    """A vocabulary being filled: one slot for every row of the model's embedding."""

    size: int
    tokens: list[str] = field(init=False)
    kinds: list[Kind] = field(init=False)
    scores: list[float] = field(init=False)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = [f"[PAD{number}]" for number in range(self.size)]
        self.kinds = [Kind.UNUSED] * self.size
        self.scores = [-10000.0] * self.size

    def put(self, number: int, token: str, kind: Kind, score: float) -> None:
        """Fill slot ``number``; raises ``MalformedError`` for a text beyond any token's."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise MalformedError(
                f"the tokenizer's token {number} has {len(token)} characters; the limit is "
                f"{MAX_TOKEN_LENGTH}"
            )
        self.tokens[number] = token
        self.kinds[number] = kind
        self.scores[number] = score

    def put_base(self, tokens: Mapping[str, int], kind: Kind, what: str) -> None:
        """Fill the slots of the trained tokens; raises ``MalformedError`` beyond the embedding."""
        for token, number in tokens.items():
            if number >= self.size:
                raise MalformedError(
                    f"{what}: the token {token[:80]!a} has number {number}, but the model has "
                    f"{self.size} (vocab_size in config.json)"
                )
            self.put(number, token, kind, 0.0)

    def put_added(self, added: Sequence[AddedToken]) -> None:
        """Fill the slots of the added tokens; those beyond the embedding are left out."""
        for token in added:
            if token.number >= self.size:
                self.notes.append(
                    f"the token {token.content[:80]!a} ({token.number}) is beyond the model's "
                    f"{self.size} embeddings and is left out"
                )
                continue
            kind = token.kind
            # llama.cpp looks for user-defined tokens in the text as it came, spaces and all.
            content = token.content
            if kind is Kind.USER_DEFINED:
                content = content.replace(SPACE_MARK, " ")
            self.put(token.number, content, kind, -1000.0)

    def check_distinct(self, what: str) -> None:
        """Refuse a text with two numbers (the engine aborts on it); raises ``MalformedError``."""
        seen: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            if token in seen or not token:
                raise MalformedError(
                    f"{what}: the token {token!a} has the numbers {seen.get(token)} and {number}"
                    if token
                    else f"{what}: token {number} is empty"
                )
            seen[token] = number


def base_tokens(model: Fields) -> dict[str, int]:
    """``model.vocab`` of ``tokenizer.json``: token -> number, numbers distinct."""
    vocab = model.mapping("vocab")
    tokens = {}
    for token, number in vocab.values.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise vocab.refuse(ascii(token[:80]), "expected a number")
        tokens[token] = number
    if len(set(tokens.values())) != len(tokens):
        raise model.refuse("vocab", "two tokens have the same number")
    return tokens


def merge_pairs(model: Fields) -> list[tuple[str, str]]:
    """``model.merges`` of ``tokenizer.json``, in order: as pairs, or as "left right"."""
    pairs = []
    for index, item in enumerate(model.items("merges")):
        # No more than a third part, which is one too many: a hostile text has millions.
        parts = item.split(" ", 2) if isinstance(item, str) else item
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) and part and " " not in part for part in parts)
        ):
            raise model.refuse(f"merges[{index}]", "expected two parts without spaces")
        pairs.append((parts[0], parts[1]))
    return pairs


def added_tokens(documents: Documents) -> tuple[AddedToken, ...]:
    """The added tokens in the order of their numbers, from wherever the model lists them."""
    found: dict[int, AddedToken] = {}
    for content, number in documents.added_tokens.items():
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0 and content:
            found[number] = AddedToken(number, content, special=False)
    if documents.tokenizer is not None:
        tokenizer = Fields.of(dict(documents.tokenizer), "tokenizer.json")
        for fields in tokenizer.mappings("added_tokens", []):
            token = _added_token(fields, fields.integer("id"))
            found[token.number] = token
    config = Fields.of(dict(documents.tokenizer_config), "tokenizer_config.json")
    decoder = config.optional_mapping("added_tokens_decoder")
    for key in decoder.values:
        if not key.isascii() or not key.isdecimal() or len(key) > 9:
            raise decoder.refuse(key[:40], "expected a number for a key")
        token = _added_token(decoder.mapping(key), int(key))
        found[token.number] = token
    return tuple(found[number] for number in sorted(found))


def text_kinds(documents: Documents) -> Entry:
    """How many kinds of text an encoder's embeddings tell apart."""
    config = Fields.of(dict(documents.config), "config.json")
    kinds = config.integer("type_vocab_size", 2, least=1, most=MAX_TEXT_KINDS)
    return uint32("tokenizer.ggml.token_type_count", kinds)


def _added_token(fields: Fields, number: int) -> AddedToken:
    return AddedToken(
        number,
        fields.text("content"),
        fields.flag("special", False),
        strips=(fields.flag("lstrip", False), fields.flag("rstrip", False)),
    )
