"""What a wheel says of its licence (core metadata 2.4, PEP 639), and which texts it carries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.message import Message
from email.parser import BytesParser

from packager.evidence.materials import Package

_DIST_INFO = r"[^/]+\.dist-info/"
METADATA = re.compile(rf"{_DIST_INFO}METADATA\Z")
_TEXT = re.compile(
    rf"{_DIST_INFO}(?:licen[cs]es/.*[^/]|(?:licen[cs]e|copying|notice)[^/]*)\Z", re.IGNORECASE
)
_CLASSIFIER = "License :: "
_LONGEST = 100  # characters; some put a whole text into the field


def describe_wheel(name: str, version: str, metadata: bytes, files: Iterable[str]) -> Package:
    """A wheel of the index by its ``METADATA`` and the names of the ``files`` in it."""
    licence = _licence(BytesParser().parsebytes(metadata, headersonly=True))
    texts = tuple(sorted(file for file in files if _TEXT.match(file)))
    return Package(name, version, licence, texts, f"pkg:pypi/{name}@{version}")


def _licence(metadata: Message) -> str | None:
    for field in ("License-Expression", "License"):
        value = str(metadata.get(field, "")).strip()
        if value and len(value) <= _LONGEST and value.isprintable():
            return value
    classifiers = (str(value) for value in metadata.get_all("Classifier", ()))
    stated = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith(_CLASSIFIER)]
    return ", ".join(stated) or None
