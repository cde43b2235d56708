"""An old bundle does not come back, an expired one is not installed, a wrong clock is named."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import keyring_of, make_bundle, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import PolicyError, TrustError
from packager.format import canonical
from packager.format.bundle import INDEX_NAME
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, signature_name
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.sequence import Mark, Sequences, encode_sequences, parse_sequences
from packager.trust.verify import Evidence, VerifiedBundle, verify_bundle

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_key(tmp_path_factory.mktemp("key") / "alice")


def verified(
    folder: Path,
    key: SigningKey,
    *,
    now: datetime = NOW,
    keyring: Keyring | None = None,
    name: str = "tiny",
    sequence: int = 1,
    content: bytes = b"{}",
    expires: str | None = None,
) -> VerifiedBundle:
    """A bundle made below ``folder``, and decided on."""
    folder.mkdir(exist_ok=True)
    made = make_bundle(
        folder, [key], name=name, sequence=sequence, expires=expires, files={"a.json": content}
    )
    signature = (made / signature_name(key.public.key_id)).read_bytes()
    evidence = Evidence(
        sums=(made / SUMS_NAME).read_bytes(),
        signatures={key.public.key_id: signature},
        index=(made / INDEX_NAME).read_bytes(),
    )
    return verify_bundle(evidence, keyring or keyring_of(key), now=now)


def test_16_a_lower_sequence_is_refused_and_both_are_named(tmp_path: Path, key: SigningKey) -> None:
    marks = Sequences().raised(verified(tmp_path / "new", key, sequence=7))
    old = verified(tmp_path / "old", key, sequence=6)
    with pytest.raises(PolicyError, match=r"tiny-1\.0\.0 has sequence 6; this host has had 7"):
        marks.check(old)
    assert marks.raised(old) == marks, "a downgrade that was allowed must not lower the mark"


def test_17_the_same_sequence_with_other_content_is_refused(
    tmp_path: Path, key: SigningKey
) -> None:
    first = verified(tmp_path / "first", key, sequence=3)
    marks = Sequences().raised(first)
    second = verified(tmp_path / "second", key, sequence=3, content=b"[]")
    with pytest.raises(PolicyError, match=r"sequence 3, as another bundle here had"):
        marks.check(second)
    marks.check(first)  # the same bundle may be installed again
    marks.raised(second).check(second)  # so may the other, once it was allowed


def test_a_higher_sequence_and_another_name_are_free(tmp_path: Path, key: SigningKey) -> None:
    marks = Sequences().raised(verified(tmp_path / "a", key, sequence=7))
    newer = verified(tmp_path / "b", key, sequence=8)
    other = verified(tmp_path / "c", key, name="other", sequence=1)
    marks.check(newer)
    marks.check(other)
    both = marks.raised(newer).raised(other)
    assert [(mark.name, mark.sequence) for mark in both.marks] == [("other", 1), ("tiny", 8)]


def test_18_a_bundle_expires_at_the_first_second_of_its_date(
    tmp_path: Path, key: SigningKey
) -> None:
    last = NOW - timedelta(seconds=1)
    assert verified(tmp_path / "a", key, expires="2026-12-01", now=last).bundle.expires
    with pytest.raises(PolicyError, match=r"tiny-1\.0\.0 expired on 2026-12-01") as caught:
        verified(tmp_path / "b", key, expires="2026-12-01")
    assert caught.value.exit_code == 18


def test_19_with_a_clock_in_1970_an_expiry_cannot_be_judged(
    tmp_path: Path, key: SigningKey
) -> None:
    with pytest.raises(PolicyError, match=r"this host takes it to be 1970-01-01") as caught:
        verified(tmp_path / "a", key, expires="2027-12-31", now=EPOCH)
    assert caught.value.hint is not None
    assert "date --set" in caught.value.hint


def test_19_with_a_clock_in_1970_what_never_expires_installs(
    tmp_path: Path, key: SigningKey
) -> None:
    assert verified(tmp_path / "a", key, now=EPOCH).bundle.expires is None


def test_19_with_a_clock_in_1970_a_key_with_dates_does_not_count(
    tmp_path: Path, key: SigningKey
) -> None:
    ring = Keyring(1, (TrustedKey("alice", key.public, not_before=NOW),))
    with pytest.raises(TrustError, match=r"this host takes it to be 1970-01-01"):
        verified(tmp_path / "a", key, now=EPOCH, keyring=ring)


def test_clocks_of_two_hosts_may_differ_by_hours(tmp_path: Path, key: SigningKey) -> None:
    behind = datetime(2026, 11, 23, 6, tzinfo=timezone.utc)  # the factory builds on the 24th
    assert verified(tmp_path / "a", key, expires="2027-12-31", now=behind).bundle.expires


MARKS = st.lists(
    st.builds(
        Mark,
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
        st.integers(1, canonical.MAX_INTEGER),
        st.binary().map(Digest.of),
    ),
    unique_by=lambda mark: mark.name,
).map(lambda marks: Sequences(tuple(sorted(marks, key=lambda mark: mark.name))))


@given(MARKS)
def test_marks_are_read_as_they_were_written(marks: Sequences) -> None:
    assert parse_sequences(encode_sequences(marks), "sequences.json") == marks


MARK = {"bundle": "0" * 64, "name": "tiny", "sequence": 7}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        b"{}",
        encode_sequences(Sequences()) + b"\n",
        canonical.encode([MARK, {**MARK, "sequence": 1}]),
        canonical.encode([MARK, {**MARK, "name": "a"}]),
        canonical.encode([{**MARK, "sequence": 0}]),
        canonical.encode([{**MARK, "sequence": True}]),
        canonical.encode([{**MARK, "bundle": "0" * 63}]),
        canonical.encode([{**MARK, "more": 1}]),
    ],
)
def test_a_damaged_record_of_sequences_is_an_error_and_never_an_empty_record(data: bytes) -> None:
    with pytest.raises(TrustError, match=r"trust/sequences\.json: .* is damaged"):
        parse_sequences(data, "trust/sequences.json")
