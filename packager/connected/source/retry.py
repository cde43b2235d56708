"""Trying again: what to wait for, how long, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

from packager.errors import AirpackError
from packager.progress import Progress

T = TypeVar("T")


class RetryableError(Exception):
    """Something that may pass: ``final`` is what to raise once patience is spent.

    ``wait`` is how many seconds the other side asked for. ``advanced`` says that some of the
    work was done nevertheless, so that patience starts anew.
    """

    def __init__(
        self, final: AirpackError, *, wait: float | None = None, advanced: bool = False
    ) -> None:
        super().__init__(final.message)
        self.final = final
        self.wait = wait
        self.advanced = advanced


@dataclass(frozen=True)
class Patience:
    """How often to try, and the seconds to wait between: doubling, with jitter, bounded.

    ``sleep`` replaces the clock's own, which whoever waits chooses.
    """

    tries: int = 6
    first: float = 1.0
    most: float = 60.0
    most_asked: float = 600.0
    sleep: Callable[[float], object] | None = None
    jitter: Callable[[], float] = random.random

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after ``failures`` in a row; at least what the other side ``asked``."""
        backoff = min(self.most, self.first * 2.0 ** (failures - 1))
        # Half fixed, half random: hosts that were refused together do not come back together.
        backoff *= 0.5 + 0.5 * self.jitter()
        return max(backoff, asked or 0.0)


def retrying(action: Callable[[], T], patience: Patience, progress: Progress) -> T:
    """The result of ``action``, tried again as long as it raises ``RetryableError``."""
    failures = 0
    while True:
        try:
            return action()
        except RetryableError as error:
            failures = 1 if error.advanced else failures + 1
            pause = patience.pause(failures, error.wait)
            if failures >= patience.tries or pause > patience.most_asked:
                raise error.final from None
            progress.note(
                f"{error.final.message}; trying again in {pause:.0f} s"
                f" ({failures} of {patience.tries - 1})"
            )
            (patience.sleep or time.sleep)(pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for by a ``Retry-After`` header, RFC 9110 s.10.2.3, in either form."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
