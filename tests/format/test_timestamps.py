"""Moments as text: UTC, whatever zone the host is in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from packager.format.timestamps import format_timestamp, parse_timestamp


@pytest.fixture
def host_in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "NPT-5:45")
        time.tzset()
        yield
    time.tzset()


def test_the_zone_of_the_host_does_not_matter(host_in_kathmandu: None) -> None:
    text = "2026-11-24T23:30:00Z"
    moment = datetime(2026, 11, 24, 23, 30, tzinfo=timezone.utc)
    assert parse_timestamp(text) == moment
    assert format_timestamp(moment) == text
    there = moment.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert format_timestamp(there) == text
    assert parse_timestamp("2026-11-24") == datetime(2026, 11, 24, tzinfo=timezone.utc)
