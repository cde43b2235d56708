"""Which paths a list of patterns names, as a shell would read them.

``*`` and ``?`` stay within one component, so ``*.json`` means the top folder alone; ``**``
stands for any number of components. A leading dot must be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of ``patterns`` names ``path``; both are separated by ``/``."""
    parts = path.split("/")
    return any(_match(parts, pattern.split("/")) for pattern in patterns)


def _match(parts: list[str], pattern: list[str]) -> bool:
    """Row by row: ``reached[i]`` says whether the pattern so far names ``parts[:i]``."""
    reached = [True] + [False] * len(parts)
    for component in pattern:
        following = [False] * len(reached)
        for index, ok in enumerate(reached):
            if component == "**":
                following[index] = ok or (
                    index > 0 and following[index - 1] and not parts[index - 1].startswith(".")
                )
            elif ok and index < len(parts) and _match_component(parts[index], component):
                following[index + 1] = True
        reached = following
    return reached[-1]


def _match_component(part: str, pattern: str) -> bool:
    if part.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatchcase(part, pattern)
