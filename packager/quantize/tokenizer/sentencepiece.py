"""SentencePiece's BPE (Llama 1 and 2, Mistral, TinyLlama, Yi): text with scores, bytes as fallback.

``tokenizer.model`` is a protocol buffer, of which three fields matter (sentencepiece_model.proto):
``ModelProto{1: repeated SentencePiece{1: piece, 2: score, 3: type}, 2: TrainerSpec{3: model_type},
3: NormalizerSpec{2: precompiled_charsmap, 3: add_dummy_prefix}}``. Where a repository has only
``tokenizer.json``, the scores are the order of the merges.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields
from packager.quantize.source import Documents
from packager.quantize.tokenizer.pretokenizers import pretokenizer_steps
from packager.quantize.tokenizer.vocabulary import (
    SPACE_MARK,
    Kind,
    Slots,
    Vocabulary,
    added_tokens,
    base_tokens,
    merge_pairs,
)

_MODEL_TYPE_UNIGRAM, _MODEL_TYPE_BPE = 1, 2
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")


@dataclass(frozen=True)
class Piece:
    """One token of ``tokenizer.model``."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """What ``tokenizer.model`` says."""

    pieces: tuple[Piece, ...]
    model_type: int
    adds_space_prefix: bool


def sentencepiece_vocabulary(documents: Documents, size: int) -> Vocabulary:
    """The vocabulary of ``tokenizer.model``, or of ``tokenizer.json``, filled up to ``size``.

    Raises ``MalformedError`` for a broken tokenizer, ``UsageError`` for one that llama.cpp
    cannot follow.
    """
    tokenizer = (
        None
        if documents.tokenizer is None
        else Fields.of(dict(documents.tokenizer), "tokenizer.json")
    )
    slots = Slots(size)
    added = added_tokens(documents)
    prefix = None if tokenizer is None else _prefix_of_json(tokenizer)
    if documents.sentencepiece is not None:
        what = "tokenizer.model"
        model = parse_model(documents.sentencepiece)
        _put_pieces(slots, model.pieces)
        prefix = model.adds_space_prefix if prefix is None else prefix
    elif tokenizer is not None:
        what = "tokenizer.json"
        _put_merged(slots, tokenizer.mapping("model"), {token.content for token in added})
    else:
        raise UsageError("the source has neither tokenizer.json nor tokenizer.model")
    slots.put_added(added)
    slots.check_distinct(what)
    chosen = documents.tokenizer_config.get("add_prefix_space")
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=tuple(slots.tokens),
        kinds=tuple(slots.kinds),
        scores=tuple(slots.scores),
        adds_space_prefix=chosen if isinstance(chosen, bool) else prefix is not False,
        notes=tuple(slots.notes),
    )


def parse_model(data: bytes, *, what: str = "tokenizer.model") -> SentencePieceModel:
    """Parse ``tokenizer.model``; raises ``MalformedError``, or ``UsageError`` unless it is BPE."""
    pieces: list[Piece] = []
    model_type, adds_space_prefix, normalizes = _MODEL_TYPE_UNIGRAM, True, False
    for number, value in _fields_of(data, what):
        if number == 1:
            pieces.append(_piece(_message(value, what), what))
        elif number == 2:
            trainer = dict(_fields_of(_message(value, what), what))
            model_type = _integer(trainer.get(3, model_type), what)
        elif number == 3:
            normalizer = dict(_fields_of(_message(value, what), what))
            normalizes = bool(normalizer.get(2))
            adds_space_prefix = bool(normalizer.get(3, 1))
    if model_type != _MODEL_TYPE_BPE:
        raise UsageError(f"{what}: not a BPE model (its type is {model_type})")
    if normalizes:
        raise UsageError(f"{what}: normalizes text by rules of its own, which llama.cpp does not")
    return SentencePieceModel(tuple(pieces), model_type, adds_space_prefix)


def _put_pieces(slots: Slots, pieces: Sequence[Piece]) -> None:
    if len(pieces) > slots.size:
        raise MalformedError(
            f"tokenizer.model: {len(pieces)} tokens, but the model has {slots.size} "
            "(vocab_size in config.json)"
        )
    for number, piece in enumerate(pieces):
        slots.put(number, piece.text, piece.kind, piece.score)


def _put_merged(slots: Slots, model: Fields, added: AbstractSet[str]) -> None:
    """Give each token the rank of the first merge that makes it: the earlier, the higher."""
    tokens = base_tokens(model)
    slots.put_base(tokens, Kind.NORMAL, model.where)
    ranks: dict[str, int] = {}
    pairs = merge_pairs(model)
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    unknown = model.optional_text("unk_token")
    _check_complete(model, tokens, set(pairs), {*added, unknown})
    for token, number in tokens.items():
        kind = Kind.NORMAL
        if token == unknown:
            kind = Kind.UNKNOWN
        elif _BYTE_TOKEN.match(token):
            kind = Kind.BYTE
        slots.put(number, token, kind, -float(ranks.get(token, len(pairs))))


def _check_complete(
    model: Fields,
    tokens: Mapping[str, int],
    pairs: AbstractSet[tuple[str, str]],
    apart: AbstractSet[str | None],
) -> None:
    """Refuse merges that leave out a pair llama.cpp would merge.

    llama.cpp joins any two neighbours whose text together is a token, which is what
    SentencePiece does, and what the merges written by transformers' converter spell out. Tokens
    set ``apart`` are not made by merging.
    """
    for token in tokens:
        if token in apart or _BYTE_TOKEN.match(token):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in tokens and right in tokens and (left, right) not in pairs:
                raise UsageError(
                    f"{model.place('merges')}: {left!a} + {right!a} is not among them, though "
                    "llama.cpp would merge it",
                    hint="add the model's tokenizer.model, or use `format: safetensors`",
                )


def _prefix_of_json(tokenizer: Fields) -> bool | None:
    """Whether ``tokenizer.json`` puts a space before the text; ``None`` if it does not say."""
    prepends = [_prepends(normalizer) for normalizer in _normalizers(tokenizer)]
    for step in pretokenizer_steps(tokenizer):
        if step.text("type") == "Metaspace":
            if step.has("prepend_scheme"):
                return step.text("prepend_scheme") != "never"
            return step.flag("add_prefix_space", True)
    return any(prepends) if prepends else None


def _normalizers(tokenizer: Fields) -> tuple[Fields, ...]:
    if not tokenizer.has("normalizer"):
        return ()
    outer = tokenizer.mapping("normalizer")
    return tuple(outer.mappings("normalizers")) if outer.text("type") == "Sequence" else (outer,)


def _prepends(normalizer: Fields) -> bool:
    """Whether ``normalizer`` prepends the space mark; refuses all but that and writing it."""
    kind = normalizer.text("type")
    if kind == "Prepend" and normalizer.text("prepend") == SPACE_MARK:
        return True
    if kind == "Replace" and normalizer.values.get("content") == SPACE_MARK:
        return False
    raise UsageError(
        f"{normalizer.where}: llama.cpp does not normalize text by this {kind}",
        hint="use `format: safetensors`",
    )


def _piece(data: bytes, what: str) -> Piece:
    values = dict(_fields_of(data, what))
    score = values.get(2, b"\0\0\0\0")
    if not isinstance(score, bytes) or len(score) != 4:
        raise MalformedError(f"{what}: a token's score is not a float")
    (number,) = struct.unpack("<f", score)
    if not math.isfinite(number):
        raise MalformedError(f"{what}: a token's score is infinite or not a number")
    kind = _integer(values.get(3, Kind.NORMAL), what)
    if kind not in set(Kind):
        raise MalformedError(f"{what}: a token of the unknown kind {kind}")
    try:
        text = _message(values.get(1, b""), what).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{what}: a token is not UTF-8") from None
    if kind == Kind.USER_DEFINED:
        text = text.replace(SPACE_MARK, " ")
    return Piece(text, number, Kind(kind))


def _fields_of(data: bytes, what: str) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message: (number, integer or bytes)."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position, what)
        wire_type = key & 7
        if wire_type == 0:
            value, position = _varint(data, position, what)
            yield key >> 3, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position, what)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise MalformedError(f"{what}: not a protocol buffer (wire type {wire_type})")
        if position + size > len(data):
            raise MalformedError(f"{what}: ends within a field")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int, what: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedError(f"{what}: ends within a number, or the number is too long")


def _message(value: int | bytes, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    raise MalformedError(f"{what}: a number where a message belongs")


def _integer(value: int | bytes, what: str) -> int:
    if isinstance(value, int):
        return value
    raise MalformedError(f"{what}: bytes where a number belongs")
