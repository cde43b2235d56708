"""Numbers of ``config.json`` that end up in single precision."""

from __future__ import annotations

import math

from packager.format.fields import Fields


def positive(fields: Fields, key: str, default: float | None = None) -> float:
    """The positive number ``key``, which single precision must hold.

    Raises ``MalformedError`` for anything else, and where it is missing without ``default``.
    """
    if default is not None and not fields.has(key):
        return default
    if not fields.has(key):
        raise fields.refuse(key, "missing")
    number = _float(fields, key, fields.values[key])
    if number <= 0:
        raise fields.refuse(key, "not a positive, finite number of single precision")
    return number


def positives(fields: Fields, key: str) -> tuple[float, ...]:
    """A list of positive numbers; raises ``MalformedError``."""
    numbers = tuple(
        _float(fields, f"{key}[{index}]", value) for index, value in enumerate(fields.items(key))
    )
    if any(number <= 0 for number in numbers):
        raise fields.refuse(key, "not all of them are positive")
    return numbers


def _float(fields: Fields, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fields.refuse(key, "expected a number")
    number = float(value) if abs(value) < 1e30 else math.inf
    if not 1e-30 < number < math.inf:
        raise fields.refuse(key, "not a positive, finite number of single precision")
    return number
