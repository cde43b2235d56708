"""The licence of a model: read off its card and its text, held against what the recipe allows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from packager.errors import AirpackError, PolicyError, UsageError
from packager.evidence.licence_text import MAX_TEXT_SIZE, licences_of_text
from packager.format.lock import HubCommit, Lock, LockedAdapter
from packager.format.relpath import has_unprintable
from packager.format.yaml_text import parse_yaml
from packager.progress import Progress

MODEL_CARD = "README.md"
MAX_CARD_SIZE = 8 << 20
_LONGEST_NAME = 200  # characters, of a person
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
_TEXT_NAME = re.compile(r"[^/]*(licen[cs]e|copying)[^/.]*(\.(txt|md|rst))?\Z", re.IGNORECASE)


def limit_of(path: str) -> int:
    """The most bytes that are read of the file ``path`` to learn the licence; -1 for other files.

    Those are the model card, and the licence texts at the top of a source.
    """
    if path == MODEL_CARD:
        return MAX_CARD_SIZE
    return MAX_TEXT_SIZE if _TEXT_NAME.match(path) else -1


def stated_licence(described: Mapping[str, bytes]) -> str | None:
    """The licence by the model card or, where that is silent, by the only text that is known.

    Of ``described``, by path, the files are read that :func:`limit_of` takes.
    """
    stated = licence_of(described.get(MODEL_CARD, b""))
    found = frozenset[str]().union(*licence_texts(described).values())
    return next(iter(found)) if stated is None and len(found) == 1 else stated


def find_licence(
    described: Mapping[str, bytes], allowed: Sequence[str], *, source: str, progress: Progress
) -> str | None:
    """The :func:`stated_licence` of a ``source``; where card and text disagree, that is told.

    Raises ``PolicyError`` unless what either says is ``allowed``.
    """
    texts = {path: ids for path, ids in licence_texts(described).items() if ids}
    found = frozenset[str]().union(*texts.values())
    licence = stated_licence(described)
    check_licence(licence, allowed, source=source)
    if licence is not None and found and licence not in found:
        others = "; ".join(f"{path} is {', '.join(sorted(texts[path]))}" for path in texts)
        fact = f"{source}: its model card says {licence}, and {others}"
        if allowed and not found <= set(allowed):
            raise PolicyError(
                f"{fact}, which the recipe does not allow",
                hint="ask the publisher which it is; if both are acceptable, add them to "
                "licence.allow in the recipe",
            )
        progress.note(fact)
    return licence


def licence_texts(described: Mapping[str, bytes]) -> dict[str, frozenset[str]]:
    """The licence texts among ``described``, by path, and what each is; nothing, if unknown."""
    return {
        path: licences_of_text(data)
        for path, data in sorted(described.items())
        if _TEXT_NAME.match(path)
    }


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


def check_accepted(lock: Lock, accepted_by: str | None) -> None:
    """Refuse gated sources unless somebody answers for their licences, and says who.

    Raises ``PolicyError``, and ``UsageError`` for what is no name.
    """
    if accepted_by is not None and not _is_name(accepted_by):
        raise UsageError(f"--accepted-by {accepted_by[:80]!a}: not a name in one line")
    sources: list[Lock | LockedAdapter] = [lock, *lock.adapters]
    gated = [
        source.source.repository
        for source in sources
        if source.gated and isinstance(source.source, HubCommit)
    ]
    if gated and accepted_by is None:
        raise PolicyError(
            f"{', '.join(gated)}: gated; somebody has to accept the licence",
            hint="read it on the hub, then say who accepts it: --accepted-by NAME",
        )


def _is_name(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _LONGEST_NAME and not has_unprintable(text)
