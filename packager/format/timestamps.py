"""Moments as text: RFC 3339 in UTC, to the second."""

from __future__ import annotations

from datetime import datetime, timezone

from packager.errors import MalformedError

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def format_timestamp(moment: datetime) -> str:
    """``2026-11-24T14:12:22Z``."""
    return moment.astimezone(timezone.utc).strftime(_FORM)


def parse_timestamp(text: str) -> datetime:
    """The moment meant by a timestamp, or by a date (its first second)."""
    for form in (_FORM, "%Y-%m-%d"):
        try:
            moment = datetime.strptime(text, form).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        # strptime also takes 2026-1-4, and the digits of other scripts.
        if format_timestamp(moment).startswith(text):
            return moment
    raise MalformedError(f"{text[:40]!r} is not a date (2026-11-24) or a moment (…T14:00:00Z)")
