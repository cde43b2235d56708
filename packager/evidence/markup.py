"""HTML that a stranger's words cannot write: whatever is not markup by type is escaped.

A page is one file that asks for nothing: no script, no link, no picture from elsewhere, and a
policy that has browsers refuse them (Content Security Policy Level 3, s.4.1).
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from unicodedata import bidirectional

GENERATOR = "airpack report"

_LINES = "\n\t"
_RIGHT_TO_LEFT = ("R", "AL", "AN")  # UAX #9, table 4
_STYLE = """
@page { size: A4; margin: 16mm 15mm }
body { max-width: 180mm; margin: 2em auto; padding: 0 1em; color: #000; background: #fff;
  font: 10.5pt/1.4 "Liberation Sans", Arial, Helvetica, sans-serif }
h1 { font-size: 20pt; line-height: 1.2; margin: 0 }
h2 { font-size: 13pt; margin: 2em 0 .6em; border-bottom: 1pt solid #000; break-after: avoid }
h3 { font-size: 10.5pt; margin: 1.2em 0 .4em; break-after: avoid }
p, figure { margin: .5em 0 }
.standing p { margin: 0 }
.standing { border: 1.5pt solid #000; padding: .5em .8em; margin: 1em 0 }
.standing b { letter-spacing: .04em }
table { border-collapse: collapse; width: 100%; margin: .6em 0; font-size: 9pt }
th, td { text-align: left; vertical-align: top; padding: .25em .8em .25em 0;
  border-bottom: .5pt solid #999; overflow-wrap: anywhere }
thead th { border-bottom: 1pt solid #000; vertical-align: bottom; overflow-wrap: normal }
tbody th { font-weight: normal }
table { table-layout: fixed }
.facts th { width: 38mm; color: #444 }
.keys th:nth-child(2) { width: 20mm }
.keys th:nth-child(1) { width: 44mm }
.variants th:nth-child(5) { width: 50mm }
.making th:nth-child(3) { width: 82mm }
.files th:nth-child(2) { width: 26mm }
.files th:nth-child(3) { width: 66mm }
.beside th:nth-child(1) { width: 40mm }
.answers th:nth-child(1) { width: 60mm }
tr, svg { break-inside: avoid }
code, pre { font-family: "Liberation Mono", "Courier New", monospace; font-size: 8pt }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 2pt solid #999;
  padding-left: .8em; margin: .4em 0 .8em; line-height: 1.35 }
th pre, td pre { border: 0; padding: 0; margin: .2em 0 0 }
.odd { font-weight: bold; border: .5pt solid #000 }
.sheet { break-before: page }
.sheet pre { border: 0; padding: 0; font-size: 9pt; line-height: 1.6 }
figcaption { font-size: 9pt; color: #444 }
svg { width: 100%; height: auto }
"""


class Markup(str):
    """Text that is HTML already; every other text is not."""

    __slots__ = ()


def escaped(text: str, *, lines: bool = False) -> Markup:
    """``text`` as HTML, each character that could hide or move others shown as its number.

    Line feeds and tabs stay where ``lines`` may be shown. Letters that run from right to left are
    cut off from their neighbours, whose order they would change.
    """
    if isinstance(text, Markup):
        return text
    kept = _LINES if lines else ""
    marked = html.escape(text) if text.isprintable() else "".join(_visible(c, kept) for c in text)
    turns = not text.isascii() and any(bidirectional(c) in _RIGHT_TO_LEFT for c in text)
    return Markup(f"<bdi>{marked}</bdi>" if turns else marked)


def _visible(character: str, kept: str) -> str:
    if character.isprintable() or character in kept:
        return html.escape(character)
    return f'<b class="odd">[U+{ord(character):04X}]</b>'


def element(name: str, *contents: str, kind: str = "") -> Markup:
    """An element around ``contents``, of the class ``kind`` if it has one."""
    attribute = f' class="{html.escape(kind)}"' if kind else ""
    return Markup(f"<{name}{attribute}>{''.join(map(escaped, contents))}</{name}>")


def together(parts: Iterable[str]) -> Markup:
    """``parts``, one on each line of the source."""
    return Markup("\n".join(map(escaped, parts)))


def preformatted(text: str) -> Markup:
    """``text`` with its line feeds, in a typewriter's letters."""
    # HTML s.13.1.2.5: one line feed behind the tag is dropped, so that is not the text's own.
    return Markup(f"<pre>\n{escaped(text, lines=True)}</pre>")


def code(text: str) -> Markup:
    """A name or a digest, letter by letter."""
    return element("code", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> Markup:
    """``rows`` of as many cells as ``head``; the first of each says what the row is of."""
    titles = element("tr", *(element("th", title) for title in head))
    lines = (_row(row) for row in rows)
    return element("table", element("thead", titles), element("tbody", together(lines)), kind=kind)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """What something is, one fact in a row."""
    return element("table", element("tbody", together(map(_row, pairs))), kind="facts")


def _row(cells: Sequence[str]) -> Markup:
    return element("tr", element("th", cells[0]), *(element("td", cell) for cell in cells[1:]))


def page(title: str, contents: Iterable[str]) -> bytes:
    """A whole document, in UTF-8."""
    style = b64encode(sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta name="generator" content="{GENERATOR}">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escaped(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        *map(escaped, contents),
        "</body>",
        "</html>",
    ]
    return ("\n".join(parts) + "\n").encode("utf-8")
