"""Sizes as people write them: ``4GiB``, ``500MB``, ``1048576``."""

from __future__ import annotations

import re

from packager.errors import UsageError

_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?\s*([A-Za-z]*)\Z")


def parse_size(text: str) -> int:
    """Bytes meant by ``text``; raises ``UsageError`` for anything but a positive size."""
    match = _SIZE.match(text.strip())
    if not match or match[3].upper() not in _UNITS:
        raise UsageError(f"{text!r} is not a size", hint="write it as 4GiB, 500MB or 1048576")
    whole, fraction, unit = match[1], match[2] or "", _UNITS[match[3].upper()]
    size = int(whole) * unit + int(fraction or 0) * unit // int(10 ** len(fraction))
    if size <= 0:
        raise UsageError(f"{text!r} is not a positive size")
    return size


def format_size(size: int) -> str:
    """``size`` bytes as people read it, in powers of 1024 and three figures."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 999.5:  # what three figures would round to 1e+03
            return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB" if value < 999.5 else f"{value:.0f} TiB"
