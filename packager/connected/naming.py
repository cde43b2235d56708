"""Errors that say which of a recipe's variants they are about, and names that were meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from packager.errors import AirpackError, UsageError


@contextmanager
def about_variant(name: str) -> Iterator[None]:
    """Put the variant ``name`` before what an error says: others have tensors and files like it."""
    try:
        yield
    except AirpackError as error:
        raise type(error)(f"variant {name}: {error.message}", hint=error.hint) from error


@contextmanager
def suggesting(written: str, known: Iterable[str]) -> Iterator[None]:
    """Where ``written`` is refused, hint at what is ``known``, and at what may have been meant."""
    try:
        yield
    except UsageError as error:
        raise UsageError(error.message, hint=_hint(written, tuple(known))) from None


def _hint(written: str, names: tuple[str, ...]) -> str:
    # All of them are in capitals.
    near = get_close_matches(written.upper(), names, n=1, cutoff=0.6)
    meant = f"{near[0]}, if that was meant; else " if near else ""
    return f"{meant}choose of {', '.join(names)}"
