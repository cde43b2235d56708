"""The kinds of value that a recipe has, each read from one field or refused where it stands."""

from __future__ import annotations

import re

from packager.format.fields import Fields

MAX_PATTERNS = 256

_TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,31}\Z")


def matching(fields: Fields, key: str, value: str, form: re.Pattern[str], what: str) -> str:
    """``value`` if it has the ``form``; else it is not ``what``, says the error."""
    if not form.match(value):
        raise fields.refuse(key, f"{value[:80]!a} is not {what}")
    return value


def printable(fields: Fields, key: str, value: str) -> str:
    """``value`` if it can be shown."""
    if len(value) > 4096 or not value.isprintable():
        raise fields.refuse(key, "is too long, or holds a character that cannot be printed")
    return value


def path_of(fields: Fields, key: str) -> str:
    """A path, relative to the recipe unless absolute."""
    return printable(fields, key, fields.text(key))


def source_patterns(fields: Fields, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns of paths in the source."""
    patterns = fields.texts(key, default)
    if len(patterns) > MAX_PATTERNS:
        raise fields.refuse(key, f"more than {MAX_PATTERNS} patterns")
    for index, pattern in enumerate(patterns):
        _within_source(fields, f"{key}[{index}]", pattern)
    return patterns


def gguf_pattern(fields: Fields, key: str) -> str:
    """The path of a GGUF file in the source, or a pattern of one."""
    pattern = _within_source(fields, key, fields.text(key))
    if not pattern.lower().endswith(".gguf"):
        raise fields.refuse(key, f"{pattern[:80]!a} is no GGUF file, as model-Q4_K_M.gguf")
    return pattern


def _within_source(fields: Fields, key: str, pattern: str) -> str:
    printable(fields, key, pattern)
    if pattern.startswith("/") or "\\" in pattern or ".." in pattern.split("/"):
        raise fields.refuse(key, "is not a pattern relative to the source")
    return pattern


def type_of(fields: Fields, key: str) -> str:
    """The name of a quantization; whether there is one of that name is not asked here."""
    return matching(fields, key, fields.text(key), _TYPE, "a type in capitals, as Q4_K_M")


def optional_type_of(fields: Fields, key: str) -> str | None:
    """As :func:`type_of`, or ``None`` where the field is absent or null."""
    return type_of(fields, key) if fields.has(key) else None


def tensor_types(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Pairs of a pattern of tensor names, and the type of those tensors, in their order."""
    if len(fields.values) > MAX_PATTERNS:
        raise fields.refuse("*", f"more than {MAX_PATTERNS} patterns")
    for pattern in fields.values:
        if not pattern or len(pattern) > 256 or not pattern.isprintable():
            raise fields.refuse(
                ascii(pattern[:80]), "is not a pattern of tensor names, as blk.*.ffn_down.weight"
            )
    return tuple((pattern, type_of(fields, pattern)) for pattern in fields.values)
