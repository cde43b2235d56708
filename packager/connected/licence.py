"""The licence of a model: read off its card, held against what the recipe allows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packager.errors import AirpackError, PolicyError
from packager.format.yaml_text import parse_yaml

MODEL_CARD = "README.md"
MAX_CARD_SIZE = 8 << 20
_MAX_FRONT_MATTER = 1 << 20
_FRONT_MATTER = re.compile(
    rb"\A(?:\xef\xbb\xbf)?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.M
)
# Licences that the hub has ids for: a card that is under one of them says so in `license`, and
# one that calls its own licence so says nothing. Vendors' ids are left out, since cards older
# than the id rightly name them under `other`.
_WELL_KNOWN = re.compile(
    r"(apache|mit|bsd|bsl|isc|zlib|ncsa|postgresql|unlicense|wtfpl|cc|cc0|a?gpl|lgpl|mpl|lppl|epl|"
    r"eupl|ecl|osl|afl|artistic|ms-pl|ofl|odbl|odc|pddl|gfdl|cdla|c-uda|etalab|"
    r"(big[a-z]+-|creativeml-)?(open)?rail)(-.*|[+0-9.].*)?\Z"
)
_ID = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,99}\Z")


def licence_of(card: bytes) -> str | None:
    """The licence id that a model card's front matter states, lower case, or ``None``.

    The hub writes ``license: other`` with ``license_name: …`` for licences that it has no id
    for: then the name is the id, unless it is that of a well-known licence. Raises
    ``PolicyError`` for front matter that cannot be read.
    """
    match = _FRONT_MATTER.match(card)
    if not match:
        return None
    try:
        matter = parse_yaml(match[1], where=MODEL_CARD, max_size=_MAX_FRONT_MATTER)
    except AirpackError as error:
        raise PolicyError(
            f"the licence cannot be read off the model card: {error.message}"
        ) from None
    if not isinstance(matter, dict):
        return None
    stated = _text(matter.get("license"))
    if stated == "other":
        name = _text(matter.get("license_name"))
        if name and not _WELL_KNOWN.match(name):
            return name
    return stated


def _text(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        return None
    licence = value.strip().lower()
    return licence if _ID.match(licence) else None


def check_licence(licence: str | None, allowed: Sequence[str], *, source: str) -> None:
    """Raises ``PolicyError`` unless ``licence`` is ``allowed``; an empty list allows any."""
    if not allowed or licence in allowed:
        return
    stated = f"is under {licence}" if licence else "states no licence that can be read"
    raise PolicyError(
        f"{source} {stated}, and the recipe allows {', '.join(allowed)}",
        hint="read the licence; if it is acceptable, add its id to licence.allow in the recipe",
    )
