"""Text that is safe and neat on a terminal: strange characters made visible, columns aligned."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "  "
_NAMES_SHOWN = 8


def visible(text: str) -> str:
    """``text`` with every character escaped that could hide, move or recolour others.

    Names on a medium and fields of an index come from strangers: an ESC or a bidirectional
    control in them must not rewrite what the operator reads. Line feeds and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """``text`` made visible, its line feeds and tabs too."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def harmless(text: str) -> str:
    """A model's ``text`` less its control characters' power over the terminal.

    What joins letters or emoji stays: people write with it.
    """
    return "".join(
        _escaped(c) if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` of as many cells each, the columns aligned, one row a line."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def counted(count: int, noun: str) -> str:
    """``count`` things: ``1 volume``, ``3 volumes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    every = [*names]
    more = len(every) - _NAMES_SHOWN
    shown = ", ".join(every[:_NAMES_SHOWN])
    return f"{shown} and {counted(more, 'other')}" if more > 0 else shown


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
