"""Typed access to parsed documents, with errors that say where: ``recipe: files[2].size``."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from packager.errors import AirpackError, MalformedError, ParseError
from packager.format.digest import Digest
from packager.format.relpath import has_unprintable, is_bare_name
from packager.format.timestamps import parse_timestamp

MAX_LINE_CHARACTERS = 1024

T = TypeVar("T")


@dataclass(frozen=True)
class Fields:
    """One mapping of a document, and its place in it.

    ``error`` is what a wrong field raises: ``ParseError`` (exit code 2) for what a person
    wrote, ``MalformedError`` (exit code 10) for what a machine wrote.
    """

    values: Mapping[str, object]
    where: str
    error: type[AirpackError] = MalformedError

    @classmethod
    def of(cls, value: object, where: str, error: type[AirpackError] = MalformedError) -> Fields:
        """View ``value`` as a mapping, or refuse it."""
        if not isinstance(value, dict):
            raise error(f"{where}: expected a mapping, got {_kind(value)}")
        for key in value:
            if not isinstance(key, str):
                raise error(f"{where}: key {key!r} is not text")
        return cls(value, where, error)

    def place(self, key: str) -> str:
        """The full name of ``key``, for messages."""
        return f"{self.where}: {key}" if ":" not in self.where else f"{self.where}.{key}"

    def refuse(self, key: str, fact: str) -> AirpackError:
        """The error that says ``fact`` of ``key``."""
        return self.error(f"{self.place(key)}: {fact}")

    def only(self, *allowed: str) -> None:
        """Refuse any key but those ``allowed``: a misspelt field must not be ignored."""
        for key in self.values:
            if key not in allowed:
                raise self.refuse(key[:80], f"unknown field; known are {', '.join(allowed)}")

    def has(self, key: str) -> bool:
        """Whether ``key`` is there and not null."""
        return self.values.get(key) is not None

    def _required(self, key: str) -> object:
        if key not in self.values:
            raise self.refuse(key, "missing")
        return self.values[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty string."""
        value = self.values.get(key, default) if default is not None else self._required(key)
        if not isinstance(value, str):
            raise self.refuse(key, f"expected text, got {_kind(value)}")
        if not value:
            raise self.refuse(key, "is empty")
        return value

    def optional_text(self, key: str) -> str | None:
        """A non-empty string, or ``None`` where the field is absent or null."""
        return self.text(key) if self.has(key) else None

    def bare_name(self, key: str, default: str | None = None) -> str:
        """A name that a directory may have on any medium."""
        value = self.text(key, default)
        if not is_bare_name(value):
            raise self.refuse(
                key, f"{value[:80]!a} is not a plain name (a-z, 0-9, '.', '_', '-'; at most 63)"
            )
        return value

    def line(self, key: str) -> str:
        """Text that may be shown on a terminal before anybody has verified it."""
        return self._check_line(key, self.text(key))

    def lines(self, key: str) -> tuple[str, ...]:
        """A list of what :meth:`line` takes."""
        return tuple(
            self._check_line(f"{key}[{index}]", text) for index, text in enumerate(self.texts(key))
        )

    def _check_line(self, key: str, text: str) -> str:
        if len(text) > MAX_LINE_CHARACTERS or has_unprintable(text):
            raise self.refuse(key, f"{text[:80]!a} is not one plain line of text")
        return text

    def timestamp(self, key: str) -> str:
        """The text of a moment or a date."""
        value = self.text(key)
        try:
            parse_timestamp(value)
        except MalformedError as error:
            raise self.refuse(key, error.message) from None
        return value

    def integer(
        self, key: str, default: int | None = None, *, least: int = 0, most: int = 2**53 - 1
    ) -> int:
        """An integer from ``least`` to ``most``; true and 1.0 are not integers."""
        value = self.values.get(key, default) if default is not None else self._required(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(key, f"expected an integer, got {_kind(value)}")
        if not least <= value <= most:
            raise self.refuse(key, f"{value} is not between {least} and {most}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A boolean."""
        value = self.values.get(key, default) if default is not None else self._required(key)
        if not isinstance(value, bool):
            raise self.refuse(key, f"expected true or false, got {_kind(value)}")
        return value

    def base64(self, key: str) -> bytes:
        """Bytes, as base64 of RFC 4648 section 4, with its padding, and in no second way."""
        text = self.text(key)
        try:
            data = b64decode(text.encode("ascii"), validate=True)
        except ValueError:  # binascii.Error and UnicodeEncodeError among them
            raise self.refuse(key, "not base64") from None
        if b64encode(data).decode("ascii") != text:  # s.3.5: the bits that pad must be zero
            raise self.refuse(key, "not base64 as it is written: bits behind the last byte are set")
        return data

    def digest(self, key: str) -> Digest:
        """A sha256."""
        value = self.text(key)
        try:
            return Digest(value)
        except MalformedError as error:
            raise self.refuse(key, error.message) from None

    def digests(self, key: str) -> tuple[Digest, ...]:
        """A list of sha256."""
        digests: list[Digest] = []
        try:
            digests.extend(map(Digest, self.texts(key)))
        except MalformedError as error:
            raise self.refuse(f"{key}[{len(digests)}]", error.message) from None
        return tuple(digests)

    def items(self, key: str, default: list[object] | None = None) -> list[object]:
        """A list of anything."""
        value = self.values.get(key, default) if default is not None else self._required(key)
        if not isinstance(value, list):
            raise self.refuse(key, f"expected a list, got {_kind(value)}")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of non-empty strings."""
        if key not in self.values and default is not None:
            return default
        values = self.items(key)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise self.refuse(f"{key}[{index}]", f"expected text, got {_kind(value)}")
        return tuple(str(value) for value in values)

    def mapping(self, key: str) -> Fields:
        """A nested mapping."""
        return Fields.of(self._required(key), self.place(key), self.error)

    def optional_mapping(self, key: str) -> Fields:
        """A nested mapping, empty where the field is absent or null."""
        return self.mapping(key) if self.has(key) else Fields({}, self.place(key), self.error)

    def mappings(self, key: str, default: list[object] | None = None) -> Iterator[Fields]:
        """A list of mappings, each knowing its index."""
        for index, value in enumerate(self.items(key, default)):
            yield Fields.of(value, self.place(f"{key}[{index}]"), self.error)

    def each(self, key: str, parse: Callable[[Fields], T]) -> tuple[T, ...]:
        """A list of mappings, each parsed."""
        return tuple(parse(fields) for fields in self.mappings(key))


def recipe_fields(value: object, where: str) -> Fields:
    """Fields of a document that a person wrote."""
    return Fields.of(value, where, ParseError)


def _kind(value: object) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true/false",
        int: "an integer",
        float: "a fraction",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
