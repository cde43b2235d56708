"""Cut a text into the windows of tokens that a watched engine reads."""

from __future__ import annotations

from collections.abc import Sequence

from packager.connected.variants.observe.observer import Observer
from packager.errors import UsageError

WINDOW = 512
_LEAST_WINDOW = 16
_MOST_CHARACTERS = 16  # a token is seldom longer; more of the text is not looked at


def read_windows(
    observer: Observer, text: str, *, most: int, what: str
) -> tuple[tuple[int, ...], ...]:
    """The first ``most`` whole windows of ``text``, each with what the model wants at its start.

    A text shorter than a window is one window. Raises ``UsageError``, naming ``what``, for one
    of a few tokens.
    """
    first, *_ = tokens = observer.tokenize(text[: most * WINDOW * _MOST_CHARACTERS]) or (0,)
    # Whether the model begins every text with the same token shows in an empty one.
    start = observer.tokenize("")
    room = min(WINDOW, observer.context) - len(start)
    body = tokens[len(start) :] if start and first == start[0] else tokens
    windows = _cut(body, room)[:most]
    if len(windows[0]) < _LEAST_WINDOW:
        raise UsageError(f"{what}: too short a text; give some pages")
    return tuple((*start, *window) for window in windows)


def _cut(tokens: Sequence[int], size: int) -> list[tuple[int, ...]]:
    whole = range(0, len(tokens) - size + 1, size)
    return [tuple(tokens[start : start + size]) for start in whole] or [tuple(tokens)]
