"""Patience: how long, how often, and what the other side may ask for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.watching import Watching

from packager.connected.source.retry import Patience, RetryableError, retry_after, retrying
from packager.errors import HubError

FAULT = HubError("the hub has a fault")


@given(st.integers(1, 50), st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_pause_is_bounded_and_never_shorter_than_asked(
    failures: int, asked: float | None, jitter: float
) -> None:
    patience = Patience(first=1.0, most=60.0, jitter=lambda: jitter)

    pause = patience.pause(failures, asked)

    assert (asked or 0.0) <= pause <= max(60.0, asked or 0.0)
    assert pause >= min(60.0, 2.0 ** (failures - 1)) / 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), ("", None), ("soon", None), ("-1", None), ("1.5", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds
    assert retry_after({}) is None


def test_retry_after_as_a_date() -> None:
    now = datetime.now(timezone.utc)

    soon = retry_after({"retry-after": format_datetime(now + timedelta(seconds=90), usegmt=True)})
    past = retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})

    assert soon is not None
    assert 80 < soon <= 90
    assert past == 0.0


@given(st.integers(1, 9), st.integers(0, 12))
def test_patience_ends_after_as_many_tries_as_it_has(tries: int, failing: int) -> None:
    calls = []

    def action() -> str:
        calls.append(1)
        if len(calls) <= failing:
            raise RetryableError(FAULT)
        return "done"

    def outcome() -> str:
        try:
            return retrying(action, Patience(tries=tries, sleep=lambda _: None), Watching())
        except HubError as error:
            return error.message

    assert outcome() == ("done" if failing < tries else FAULT.message)
    assert len(calls) == min(tries, failing + 1)


def test_each_new_try_is_announced() -> None:
    watching = Watching()
    outcomes = iter([RetryableError(FAULT, wait=3.0), None])

    def action() -> None:
        if error := next(outcomes):
            raise error

    retrying(action, Patience(tries=2, sleep=lambda _: None, jitter=lambda: 1.0), watching)

    assert watching.notes == ["the hub has a fault; trying again in 3 s (1 of 1)"]
