"""What time it is, on a host whose clock may be wrong: never earlier than what it saw signed.

A host without a network has a clock that nobody sets, and whoever can turn it back could bring an
expired bundle or key back to life. So the host remembers the newest moment at which a bundle that
it installed says it was built. That moment has passed, by the word of as many signers as the
host requires; *now* is it or the host's clock, whichever is later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from packager.errors import MalformedError, TrustError
from packager.format import canonical
from packager.format.fields import Fields
from packager.format.timestamps import format_timestamp, parse_timestamp
from packager.trust.verify import VerifiedBundle

NEWEST_NAME = "newest.json"
MAX_NEWEST_SIZE = 1 << 12


@dataclass(frozen=True)
class Newest:
    """The newest moment that this host saw signed, and the title of the bundle that said so."""

    built: datetime
    title: str


def reckon(clock: datetime, newest: Newest | None) -> datetime:
    """The time to judge by: that of the ``clock``, but never before ``newest``."""
    return clock if newest is None else max(clock, newest.built)


def newer(newest: Newest | None, verified: VerifiedBundle) -> Newest:
    """``newest``, or what ``verified`` says if that is later."""
    built = parse_timestamp(verified.bundle.created)
    if newest is not None and newest.built >= built:
        return newest
    return Newest(built, verified.bundle.title)


def encode_newest(newest: Newest) -> bytes:
    """Write it as canonical JSON."""
    return canonical.encode({"built": format_timestamp(newest.built), "title": newest.title})


def parse_newest(data: bytes, what: str) -> Newest:
    """Read it; raises ``TrustError`` if the file is damaged."""
    try:
        fields = Fields.of(canonical.decode(data, what=what, max_size=MAX_NEWEST_SIZE), what)
        fields.only("built", "title")
        return Newest(parse_timestamp(fields.timestamp("built")), fields.line("title"))
    except MalformedError as error:
        raise TrustError(
            f"{what}: the record of the newest bundle is damaged: "
            f"{error.message.removeprefix(f'{what}: ')}",
            hint=f"set this host's clock, then remove {what}",
        ) from None
