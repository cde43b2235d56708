"""What any bytes must come to in each parser: a value, or an error of airpack's own, and soon.

A value must also be the whole of what was read: written again it gives the same bytes, or at
least the same members. ``scripts/fuzz.py`` looks for bytes that break this, and
``tests/format/test_corpora.py`` goes through those in ``tests/corpora`` at every run.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from packager.cli.text import one_line
from packager.errors import AirpackError
from packager.format import (
    bundle,
    envelope,
    foreign_json,
    gguf_header,
    imatrix,
    inventory,
    keyset,
    lock,
    model_signature,
    patch,
    receipt,
    recipe,
    safetensors_header,
    statement,
    sums,
    ticket,
)
from packager.trust import clock, keyring, keys, sequence
from packager.trust import model_signature as model_trust

MAX_INPUT_SIZE = 1 << 16
MAX_SECONDS = 1.0  # of the processor
MAX_MESSAGE = 12 << 10  # characters; a key of GGUF has 1 KiB, each byte of it four when escaped

T = TypeVar("T")
Target = Callable[[bytes], None]


class BrokenPromiseError(Exception):
    """What a parser did that none may do."""


def check(target: Target, data: bytes) -> bool:
    """Whether ``target`` takes ``data``; raises whatever is not a refusal by airpack."""
    begin = time.process_time()
    try:
        target(data)
    except AirpackError as error:
        taken = False
        _require(len(one_line(error.message)) <= MAX_MESSAGE, "a message beyond any screen")
    else:
        taken = True
    spent = time.process_time() - begin
    _require(spent <= MAX_SECONDS, f"{spent:.1f} s for {len(data)} bytes")
    return taken


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenPromiseError(otherwise)


def _same_bytes(parse: Callable[[bytes], T], encode: Callable[[T], bytes], data: bytes) -> None:
    """For documents of which there is one form."""
    _require(encode(parse(data)) == data, "not the bytes that were read")


def _same_members(parse: Callable[[bytes], T], encode: Callable[[T], bytes], data: bytes) -> None:
    """For documents whose members may be left out where they say nothing."""
    written = encode(parse(data))
    _require(_said(json.loads(written)) == _said(json.loads(data)), "not what was read")
    _same_bytes(parse, encode, written)


def _said(value: object) -> object:
    """``value`` less the members that are null, false or empty."""
    if isinstance(value, dict):
        members = ((key, _said(member)) for key, member in value.items())
        return {key: member for key, member in members if member not in (None, False, [], {})}
    return [_said(item) for item in value] if isinstance(value, list) else value


def _same_value(parse: Callable[[bytes], T], encode: Callable[[T], bytes], data: bytes) -> None:
    """For documents that people write, in many forms."""
    value = parse(data)
    _require(parse(encode(value)) == value, "not the value that was read")


def _safetensors(data: bytes) -> None:
    """``data`` as a whole file: its tensors lie behind the header, one after the other."""
    end = safetensors_header.header_end(data[:8], file_size=len(data), what="x")
    header = safetensors_header.parse_header(data[:end], file_size=len(data), what="x")
    covered = sum(tensor.size for tensor in header.tensors)
    _require(end + covered == len(data), "tensors that do not cover the file")
    safetensors_header.check_unique([("x", header)])


def _gguf(data: bytes) -> None:
    """``data`` as a whole file, whose arrays are kept."""
    keep = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.merges", "a")
    stream = io.BytesIO(data)
    header = gguf_header.parse_header(stream, file_size=len(data), what="x", arrays=keep)
    ends = [header.data_begin, *(tensor.offset + tensor.size for tensor in header.tensors)]
    _require(ends == sorted(ends), "tensors that overlap")
    _require(not header.tensors or ends[-1] <= len(data), "tensors past the end of the file")


def _imatrix(data: bytes) -> None:
    header = imatrix.parse_imatrix_header(io.BytesIO(data), file_size=len(data), what="x")
    for entry in header.entries:
        _require(entry.sums.size == 4 * entry.experts * entry.columns, "sums of another size")
        _require(entry.counts.size == 4 * entry.experts, "counts of another size")


def _model_signature(data: bytes) -> None:
    signed = model_signature.parse_model_signature(data, "x")
    model_signature.parse_statement(signed.payload, "x")


def _public_key(data: bytes) -> None:
    """Both what a person types the name of and what stands in documents."""
    try:
        key = keys.parse_spki(data, "x")
    except AirpackError:
        key = keys.parse_public_key(data, "x")
    _require(keys.parse_spki(key.spki, "x") == key, "another key than was read")
    _require(not key.verifies(b"", b""), "an empty signature holds")


TARGETS: Mapping[str, Target] = {
    "index": partial(_same_members, bundle.parse_bundle, bundle.encode_bundle),
    "sums": partial(_same_bytes, sums.parse_sums, sums.encode_sums),
    "safetensors": _safetensors,
    "gguf": _gguf,
    "lock": partial(_same_members, lock.parse_lock, lock.encode_lock),
    "receipt": partial(_same_members, receipt.parse_receipt, receipt.encode_receipt),
    "inventory": partial(_same_bytes, inventory.parse_inventory, inventory.encode_inventory),
    "ticket": partial(
        _same_value,
        lambda data: ticket.parse_ticket(data, "x"),
        lambda value: ticket.encode_ticket(value).encode("ascii"),
    ),
    "patch": partial(_same_bytes, patch.parse_patch, patch.encode_patch),
    "keyset": partial(
        _same_bytes, lambda data: keyset.parse_key_set(data, "x"), keyset.encode_key_set
    ),
    "envelope": partial(
        _same_bytes, lambda data: envelope.parse_envelope(data, "x"), envelope.encode_envelope
    ),
    "provenance": lambda data: statement.parse_account(data) and None,
    "model-signature": _model_signature,
    "model-key": lambda data: model_trust.parse_model_key(data, "x") and None,
    "imatrix": _imatrix,
    "keyring": partial(
        _same_bytes, lambda data: keyring.parse_keyring(data, "x"), keyring.encode_keyring
    ),
    "sequences": partial(
        _same_bytes, lambda data: sequence.parse_sequences(data, "x"), sequence.encode_sequences
    ),
    "newest": partial(_same_value, lambda data: clock.parse_newest(data, "x"), clock.encode_newest),
    "public-key": _public_key,
    "recipe": lambda data: recipe.parse_recipe(data) and None,
    "foreign-json": lambda data: foreign_json.parse_json(data, what="x") and None,
    "shard-index": lambda data: safetensors_header.parse_index(data, what="x") and None,
}
