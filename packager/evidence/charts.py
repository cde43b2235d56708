"""Size against quality, drawn as SVG in black and white: a row for each variant, none on another.

Of each a bar for its size, and on one scale a dot for what its perplexity rose by, in a line as
long as its confidence interval.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from packager.evidence.markup import Markup
from packager.format.sizes import format_size

_WIDTH, _ROW, _HEAD = 680, 22, 24
_BARS, _BAR_WIDTH = 150, 150
_DOTS, _DOTS_WIDTH = 400, 150
_FIGURES = _DOTS + _DOTS_WIDTH + 12
_NAME_CHARACTERS = 22


@dataclass(frozen=True)
class Weighed:
    """A variant, by its plain name, and its ``size`` in bytes.

    Where it was measured, ``increase`` is the share by which its perplexity is above the
    original's, and ``margin`` half of the 95% confidence interval.
    """

    name: str
    size: int
    increase: float | None = None
    margin: float = 0.0


def chart(variants: Sequence[Weighed]) -> Markup:
    """The drawing; ``variants`` in the order in which they are to stand."""
    lows = [v.increase - v.margin for v in variants if v.increase is not None]
    highs = [v.increase + v.margin for v in variants if v.increase is not None]
    scale = _Scale(min(0.0, *lows), max(0.0, *highs)) if lows else _Scale(0.0, 0.0)
    largest = max(1, *(v.size for v in variants))
    height = _HEAD + _ROW * len(variants) + 8
    zero = scale.place(0.0)
    parts = [
        _text(_BARS, 14, "size"),
        _text(_DOTS, 14, "perplexity above the original's"),
        _line(zero, _HEAD - 4, zero, height, dashed=True),
    ]
    for number, variant in enumerate(variants):
        parts += _row(variant, _HEAD + _ROW * number + _ROW / 2, largest, scale)
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="size against quality" '
        f'font-family="Liberation Sans, Arial, sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def place(self, value: float) -> float:
        """Where ``value`` stands; at the left end, where there is but one."""
        span = self.high - self.low
        return _DOTS + (_DOTS_WIDTH * (value - self.low) / span if span else 0.0)


def _row(variant: Weighed, y: float, largest: int, scale: _Scale) -> list[str]:
    width = max(1.0, _BAR_WIDTH * variant.size / largest)
    name = variant.name
    if len(name) > _NAME_CHARACTERS:
        name = f"{name[: _NAME_CHARACTERS - 3]}..."
    parts = [
        _text(0, y + 4, name),
        f'<rect x="{_BARS}" y="{y - 6:.1f}" width="{width:.1f}" height="12" fill="#999"/>',
        _text(_BARS + width + 6, y + 4, format_size(variant.size)),
    ]
    if variant.increase is None:
        return [*parts, _text(_FIGURES, y + 4, "not measured")]
    left = scale.place(variant.increase - variant.margin)
    right = scale.place(variant.increase + variant.margin)
    return [
        *parts,
        _line(left, y, right, y),
        _line(left, y - 4, left, y + 4),
        _line(right, y - 4, right, y + 4),
        f'<circle cx="{scale.place(variant.increase):.1f}" cy="{y:.1f}" r="3.5"/>',
        _text(_FIGURES, y + 4, share(variant.increase, variant.margin)),
    ]


def share(increase: float, margin: float) -> str:
    """A share and its margin in per cent; rounded first, so that no -0.0% is among them."""
    return f"{round(increase, 3) + 0.0:+.1%} ± {margin:.1%}"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="2 3"' if dashed else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#000"{dashes}/>'
