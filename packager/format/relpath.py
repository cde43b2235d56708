"""Relative paths that are safe on every filesystem the bundle may meet.

One rule for paths inside the payload, names on the medium and files of a source: a path that
means something else on another system, or on a terminal, is refused (``UnsafeContentError``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from packager.errors import UnsafeContentError

MAX_PATH_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_COMPONENTS = 32
MAX_MEDIUM_NAME_BYTES = 120

_MEDIUM_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_BARE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "123456789"
}
_UNUSABLE = frozenset('\\:<>"|?*')  # separators, drive letters, streams, wildcards elsewhere
# Cc control, Cf format (bidirectional overrides among them), Cs surrogate, Zl and Zp line ends.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def check_relpath(path: str) -> str:
    """Return ``path`` if it is a plain relative path, else raise ``UnsafeContentError``."""
    fact = _fault(path)
    if fact:
        raise UnsafeContentError(f"path {path[:200]!a} {fact}")
    return path


def check_medium_name(name: str) -> str:
    """Return ``name`` if FAT32, exFAT, ISO 9660 + Joliet and a shell glob all take it."""
    check_relpath(name)
    if not _MEDIUM_NAME.match(name) or len(name) > MAX_MEDIUM_NAME_BYTES:
        raise UnsafeContentError(f"name {name!a} is not fit for every medium ([A-Za-z0-9._-], 120)")
    return name


def is_bare_name(name: str) -> bool:
    """Whether ``name`` can name a model, a version or a variant: lower case, no separators."""
    return bool(_BARE_NAME.match(name)) and _fault(name) is None


def has_unprintable(text: str) -> bool:
    """Whether ``text`` holds what could deceive a terminal: controls, formatting, line ends."""
    return any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def check_distinct(paths: Iterable[str]) -> None:
    """Refuse paths that some filesystem would take for the same, or for file and directory."""
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts)):
            _claim(seen, "/".join(parts[:end]), is_file=False)
        _claim(seen, path, is_file=True)


def _claim(seen: dict[str, tuple[str, bool]], path: str, *, is_file: bool) -> None:
    folded = _fold(path)
    if folded not in seen:
        seen[folded] = (path, is_file)
        return
    other, other_is_file = seen[folded]
    if other_is_file != is_file:
        raise UnsafeContentError(
            f"{other[:200]!a} and {path[:200]!a} are one name, for a file and for a directory"
        )
    if is_file or other != path:
        raise UnsafeContentError(f"{other[:200]!a} and {path[:200]!a} are the same on some hosts")


def _fold(path: str) -> str:
    """The same text for paths that differ in case or in encoding (Unicode 3.13, D146)."""
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", path).casefold())
    return unicodedata.normalize("NFKD", once.casefold())


def _fault(path: str) -> str | None:
    if not path:
        return "is empty"
    if len(path) > MAX_PATH_BYTES:
        return f"is over {MAX_PATH_BYTES} bytes"
    if has_unprintable(path):
        return "holds a control, formatting or surrogate character"
    if len(path.encode("utf-8")) > MAX_PATH_BYTES:
        return f"is over {MAX_PATH_BYTES} bytes"
    if path.startswith("/"):
        return "is absolute"
    unusable = _UNUSABLE.intersection(path)
    if unusable:
        return f"holds {' '.join(sorted(unusable))}, which some hosts take for something else"
    parts = path.split("/")
    if len(parts) > MAX_COMPONENTS:
        return f"has more than {MAX_COMPONENTS} components"
    return next((fact for part in parts if (fact := _component_fault(part))), None)


def _component_fault(part: str) -> str | None:
    # What a host that maps wide or raised characters to plain ones would make of it.
    plain = unicodedata.normalize("NFKC", part)
    if plain in ("", ".", "..") or "/" in plain or "\\" in plain:
        return f"has the component {part!a}"
    if part.startswith("."):
        return "has a hidden component"
    if part.startswith("-"):
        return "has a component that a command would take for an option"
    if part.endswith(".") or part != part.strip():
        return "has a component with a space or a dot at its edge"
    if len(part.encode("utf-8")) > MAX_COMPONENT_BYTES:
        return f"has a component over {MAX_COMPONENT_BYTES} bytes"
    if plain.split(".")[0].rstrip().lower() in _RESERVED:
        return "has a component that is a device on some hosts"
    return None
