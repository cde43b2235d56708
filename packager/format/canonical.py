"""Canonical JSON: one value, one sequence of bytes (RFC 8785, without its floats).

Every signed document of airpack is written here and read back here. Reading is strict: the
bytes must be exactly those that writing the parsed value would give, which at one stroke
refuses duplicate keys, byte-order marks, spare white space, NaN and exponents. Documents hold
objects, arrays, strings, integers below 2**53 in magnitude, booleans and null; a measured
quantity is an integer in a named unit (``logprob_micronats``), never a float.
"""

from __future__ import annotations

import json
from typing import NoReturn

from packager.errors import MalformedError

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]

MAX_INTEGER = 2**53 - 1  # RFC 8785 s.3.2.2.3: what an IEEE 754 double holds exactly
MAX_DEPTH = 32
# Objects and arrays, each some 60 to 230 bytes once parsed: room in an index for 65,536 files
# and for 180,000 positions of golden answers at 11 lists each. Digests are text, not counted.
MAX_CONTAINERS = 1 << 21


def encode(value: Json) -> bytes:
    """Write ``value`` as canonical JSON.

    Raises ``MalformedError`` for a value canonical documents may not hold.
    """
    _check(value, "$", 0)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def decode(data: bytes, *, what: str, max_size: int) -> Json:
    """Read a canonical document of at most ``max_size`` bytes, called ``what`` in errors.

    Raises ``MalformedError`` unless ``data`` is the canonical form of the value it holds.
    """
    if len(data) > max_size:
        raise MalformedError(f"{what}: {len(data)} bytes, more than the limit of {max_size}")
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise MalformedError(f"{what}: more than {MAX_CONTAINERS} objects and arrays")
    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            parse_float=lambda text: _refuse(what, f"a fraction, {text[:40]}"),
            parse_constant=lambda text: _refuse(what, text),
            parse_int=lambda text: _integer(what, text),
        )
    except RecursionError:
        raise MalformedError(f"{what}: nested deeper than {MAX_DEPTH}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MalformedError(f"{what}: not valid JSON: {error}") from None
    try:
        canonical = encode(value)
    except MalformedError as error:
        raise MalformedError(f"{what}: {error.message}") from None
    if canonical != data:
        raise MalformedError(
            f"{what}: not in canonical form (duplicate keys, order or white space)"
        )
    return value


def _integer(what: str, text: str) -> int:
    if len(text) > 17:
        _refuse(what, f"an integer of {len(text)} digits")
    return int(text)


def _refuse(what: str, fact: str) -> NoReturn:
    raise MalformedError(f"{what}: holds {fact}, which a canonical document may not")


def _check(value: Json, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            # RFC 8785 sorts keys by UTF-16 code unit, which for ASCII is Python's own order;
            # printable, since keys are named in errors.
            if not isinstance(key, str) or not (key.isascii() and key.isprintable()):
                raise MalformedError(f"{where}: key {str(key)[:80]!a} is not printable ASCII")
            _check(item, f"{where}.{key[:80]}", depth + 1)
    else:
        _check_scalar(value, where)


def _check_scalar(value: object, where: str) -> None:
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise MalformedError(f"{where}: integer beyond 2^53")
    elif value is not None:
        raise MalformedError(f"{where}: {type(value).__name__} has no canonical form")


def _check_text(value: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError(f"{where}: a lone surrogate is not text") from None
