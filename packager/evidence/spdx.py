"""Licences as CycloneDX 1.6 has them: by SPDX id, as an SPDX expression, or by a mere name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from packager.format.canonical import Json

_PLAIN_ID = re.compile(r"(?!LicenseRef-)[A-Za-z0-9.-]+\Z")  # on the SPDX list by itself


def declared(licence: str | None) -> list[Json]:
    """What a source or a package says its licence is; nothing where it says nothing."""
    if licence is None:
        return []
    try:
        expression = str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        return [{"license": {"name": licence, "acknowledgement": "declared"}}]
    if _PLAIN_ID.match(expression):
        return [{"license": {"id": expression, "acknowledgement": "declared"}}]
    return [{"expression": expression, "acknowledgement": "declared"}]


def found(licences: Iterable[str]) -> list[Json]:
    """Licences that texts were found to be, each by a plain id."""
    return [{"license": _named(licence)} for licence in sorted(licences)]


def _named(licence: str) -> dict[str, Json]:
    try:
        return {"id": str(canonicalize_license_expression(licence))}
    except InvalidLicenseExpression:
        return {"name": licence}
