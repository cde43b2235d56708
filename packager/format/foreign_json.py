"""JSON that others wrote: any spelling of it, but one meaning only, and within bounds.

Checkpoints carry their headers, configurations and tokenizers as ordinary JSON. It need not be
canonical, but duplicate keys, NaN, lone surrogates and bottomless nesting are refused, because
two readers could take them for two different documents.
"""

from __future__ import annotations

import json
from typing import NoReturn

from packager.errors import MalformedError

MAX_NESTING = 128
# Objects and arrays: a tokenizer with 300,000 merges as pairs has its place, and what a parser
# holds for this many of them is some 250 MB.
MAX_CONTAINERS = 1 << 20


def parse_json(data: bytes, *, what: str) -> object:
    """The value that ``data`` holds; ``what`` names the document in errors.

    Raises ``MalformedError`` for anything that is not strict, unambiguous UTF-8 JSON.
    """
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise MalformedError(f"{what}: more than {MAX_CONTAINERS} objects and arrays")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"{what}: not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise MalformedError(f"{what}: begins with a byte-order mark")
    _refuse_deep_nesting(text, what)

    def one_meaning(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members: dict[str, object] = {}
        for key, member in pairs:
            if key in members:
                raise MalformedError(f"{what}: the key {key[:80]!a} is there twice")
            members[key] = member
        return members

    def no_constant(text: str) -> NoReturn:
        raise MalformedError(f"{what}: holds {text}, which is not JSON")

    try:
        value: object = json.loads(text, object_pairs_hook=one_meaning, parse_constant=no_constant)
    # ValueError: malformed text, or an integer of thousands of digits.
    except ValueError as error:
        raise MalformedError(f"{what}: not valid JSON: {error}") from None
    if "\\u" in text:
        _refuse_lone_surrogates(value, what)
    return value


def parse_json_object(data: bytes, *, what: str) -> dict[str, object]:
    """The JSON object that ``data`` holds; raises ``MalformedError`` for any other value."""
    value = parse_json(data, what=what)
    if not isinstance(value, dict):
        raise MalformedError(f"{what}: expected a JSON object")
    return value


def _refuse_deep_nesting(text: str, what: str) -> None:
    """Refuse deep nesting before the parser recurses; brackets in strings do not count."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_NESTING:
                raise MalformedError(f"{what}: nested deeper than {MAX_NESTING}")
        elif character in "]}":
            depth -= 1


def _refuse_lone_surrogates(value: object, what: str) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise MalformedError(f"{what}: {item[:80]!a} holds a lone surrogate") from None
