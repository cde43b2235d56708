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
MAX_MEDIUM_NAME_BYTES = 120

_MEDIUM_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_BARE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_RESERVED = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "123456789"
}
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


def check_distinct(paths: Iterable[str]) -> None:
    """Refuse paths that some filesystem would take for the same, or for file and directory."""
    files: dict[str, str] = {}
    for path in paths:
        folded = _fold(path)
        if folded in files:
            raise UnsafeContentError(
                f"paths {files[folded]!a} and {path!a} are the same on some hosts"
            )
        files[folded] = path
    for folded, path in files.items():
        parts = folded.split("/")
        for end in range(1, len(parts)):
            if (parent := "/".join(parts[:end])) in files:
                raise UnsafeContentError(
                    f"{files[parent]!a} is a file and the directory of {path!a}"
                )


def _fold(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


def _fault(path: str) -> str | None:
    if not path:
        return "is empty"
    if any(unicodedata.category(character) in _UNPRINTABLE for character in path):
        return "holds a control, formatting or surrogate character"
    if len(path.encode("utf-8")) > MAX_PATH_BYTES:
        return f"is over {MAX_PATH_BYTES} bytes"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    if ":" in path:
        return "holds a colon (a drive letter or a stream on some hosts)"
    return next((fact for part in path.split("/") if (fact := _component_fault(part))), None)


def _component_fault(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the component {part!r}"
    if part.startswith("."):
        return "has a hidden component"
    if part.startswith("-"):
        return "has a component that a command would take for an option"
    if part.endswith((".", " ")) or part.startswith(" "):
        return "has a component with a space or a dot at its edge"
    if len(part.encode("utf-8")) > MAX_COMPONENT_BYTES:
        return f"has a component over {MAX_COMPONENT_BYTES} bytes"
    if part.split(".")[0].lower() in _RESERVED:
        return "has a component that is a device on some hosts"
    return None
