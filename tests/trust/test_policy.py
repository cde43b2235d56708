"""A policy can demand kinds of keys, not only a number of them, and must stay within reach."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from support.bundles import keyring_of, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import TrustError
from packager.format.keyset import MAX_KEYS, KeyEntry, KeySet, SignedKeySet
from packager.trust.keyring import Keyring, TrustedKey, encode_keyring, parse_keyring
from packager.trust.verify import Evidence, require_signers

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
SUMS = b"the bytes that are signed\n"
BOTH = ("ml-dsa-87", "p256")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[SigningKey]:
    """Two keys of the kind p256, then one of the kind ml-dsa-87."""
    place = tmp_path_factory.mktemp("keys")
    return [make_key(place / "a"), make_key(place / "b"), make_key(place / "q", "ml-dsa-87")]


def signed_by(*keys: SigningKey) -> Evidence:
    return Evidence(SUMS, {key.public.key_id: key.sign(SUMS) for key in keys}, b"")


def test_a_required_kind_must_be_among_the_signers_and_who_has_it_is_named(
    keys: list[SigningKey],
) -> None:
    a, b, q = keys
    ring = keyring_of(*keys).with_policy(2, ["ml-dsa-87"])
    assert len(require_signers(signed_by(a, q), ring, now=NOW)) == 2
    with pytest.raises(TrustError, match="no signature by a trusted key of the kind ml") as caught:
        require_signers(signed_by(a, b), ring, now=NOW)
    assert caught.value.exit_code == 11
    assert f"ask signer 2 (key {q.public.key_id})" in (caught.value.hint or "")


def test_both_kinds_can_be_required_of_a_threshold_of_one(keys: list[SigningKey]) -> None:
    a, b, q = keys
    ring = keyring_of(*keys).with_policy(1, BOTH)
    assert len(require_signers(signed_by(b, q), ring, now=NOW)) == 2
    for signers, kind in ((signed_by(a, b), "ml-dsa-87"), (signed_by(q), "p256")):
        with pytest.raises(TrustError, match=f"of the kind {kind}"):
            require_signers(signers, ring, now=NOW)


@pytest.mark.parametrize("fault", ["revoked", "expired", "unknown"])
def test_10_a_key_that_does_not_count_does_not_make_up_for_its_kind(
    keys: list[SigningKey], fault: str
) -> None:
    a, _, q = keys
    bad = TrustedKey(
        "quinn",
        q.public,
        revoked=fault == "revoked",
        not_after=NOW - timedelta(days=1) if fault == "expired" else None,
    )
    others = () if fault == "unknown" else (bad,)
    ring = Keyring(1, (TrustedKey("alice", a.public), *others), ("ml-dsa-87",))
    with pytest.raises(TrustError, match="of the kind ml-dsa-87") as caught:
        require_signers(signed_by(a, q), ring, now=NOW)
    assert "ask the sender" in (caught.value.hint or "")


def test_09_a_kind_that_no_key_here_has_cannot_be_required(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys[:2])
    with pytest.raises(TrustError, match="no usable key here is of the kind ml-dsa-87") as caught:
        ring.with_policy(1, ["ml-dsa-87"])
    assert "airpack keys generate --algorithm ml-dsa-87" in (caught.value.hint or "")


def test_09_the_last_key_of_a_required_kind_is_not_removed(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys).with_policy(1, ["ml-dsa-87"])
    q = keys[2].public.key_id
    with pytest.raises(TrustError, match="of the kind ml-dsa-87") as caught:
        ring.without_key(q)
    assert "airpack trust policy --threshold 1, without that kind" in (caught.value.hint or "")
    eased = ring.with_policy(1, [])
    assert eased.without_key(q).find(q) is None


def test_09_removing_cannot_leave_a_threshold_out_of_reach(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys[:2], threshold=2)
    with pytest.raises(TrustError, match="1 keys could never give the 2 signatures") as caught:
        ring.without_key(keys[0].public.key_id)
    assert caught.value.hint == "airpack trust policy --threshold 1"


def test_10_a_stolen_key_can_be_revoked_whatever_the_policy_and_nothing_is_eased(
    keys: list[SigningKey],
) -> None:
    ring = keyring_of(*keys[:2], threshold=2).with_revoked(keys[0].public.key_id, "stolen")
    assert ring.threshold == 2
    assert parse_keyring(encode_keyring(ring), "keyring.json") == ring
    with pytest.raises(TrustError, match="signed by 1 of the 2"):
        require_signers(signed_by(*keys[:2]), ring, now=NOW)
    again = ring.with_key(TrustedKey("next", keys[2].public))
    assert require_signers(signed_by(keys[1], keys[2]), again, now=NOW)


def test_10_the_only_key_can_always_be_revoked(keys: list[SigningKey]) -> None:
    ring = keyring_of(keys[0]).with_revoked(keys[0].public.key_id, "stolen")
    with pytest.raises(TrustError, match=r"is revoked \(stolen\)"):
        require_signers(signed_by(keys[0]), ring, now=NOW)


def test_a_threshold_alone_keeps_the_kinds_and_a_policy_states_them_anew(
    keys: list[SigningKey],
) -> None:
    ring = keyring_of(*keys).with_policy(1, ["p256", "ml-dsa-87", "p256"])
    assert ring.require_algorithms == BOTH
    assert ring.with_threshold(3).require_algorithms == BOTH
    assert ring.with_policy(3, []).require_algorithms == ()


def test_a_policy_is_read_as_it_was_written(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys).with_policy(2, BOTH).with_revoked(keys[1].public.key_id, "lost")
    assert parse_keyring(encode_keyring(ring), "keyring.json") == ring


@pytest.mark.parametrize("kinds", [("p256", "ml-dsa-87"), ("p256", "p256"), ("rsa",)])
def test_15_kinds_out_of_order_or_unknown_are_damage(
    keys: list[SigningKey], kinds: tuple[str, ...]
) -> None:
    ring = keyring_of(*keys)
    bent = Keyring(ring.threshold, ring.keys, kinds)
    with pytest.raises(TrustError, match="the keyring is damaged"):
        parse_keyring(encode_keyring(bent), "keyring.json")


def test_a_key_that_is_never_valid_is_not_added(keys: list[SigningKey]) -> None:
    never = TrustedKey("alice", keys[0].public, not_before=NOW, not_after=NOW)
    with pytest.raises(TrustError, match="never"):
        Keyring().with_key(never)


@pytest.mark.parametrize("reason", ["", "a\nb", "\x1b[2J", "x" * 201])
def test_a_reason_that_could_not_be_shown_is_refused(keys: list[SigningKey], reason: str) -> None:
    with pytest.raises(TrustError, match="is no reason") as caught:
        keyring_of(keys[0]).with_revoked(keys[0].public.key_id, reason)
    assert caught.value.message.isprintable()


def test_10_revoking_twice_keeps_the_first_reason(keys: list[SigningKey]) -> None:
    key_id = keys[0].public.key_id
    ring = keyring_of(*keys).with_revoked(key_id, "stolen")
    assert ring.with_revoked(key_id, "not so bad") == ring


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"not_after":"2027-01-01T00:00:00Z"', b'"not_after":"2027-01-01"'),
        (b'"reason":"stolen"', b'"reason":"' + b"x" * 201 + b'"'),
        (b'"airpack-key-set"', b'"airpack-keyring"'),
    ],
)
def test_15_a_keyring_as_airpack_would_not_write_it_is_damaged(
    keys: list[SigningKey], old: bytes, new: bytes
) -> None:
    until = datetime(2027, 1, 1, tzinfo=timezone.utc)
    dated = TrustedKey("alice", keys[0].public, not_after=until)
    ring = keyring_of(*keys[1:]).with_key(dated).with_revoked(keys[1].public.key_id, "stolen")
    followed = replace(ring.as_set(), key_set=replace(ring.as_set().key_set, number=1))
    data = encode_keyring(Keyring().with_set(followed))
    assert data.count(old) > 0
    with pytest.raises(TrustError, match="the keyring is damaged"):
        parse_keyring(data.replace(old, new, 1), "keyring.json")


def test_a_set_that_leaves_no_room_for_what_is_revoked_here_is_refused(
    keys: list[SigningKey],
) -> None:
    largest = keys[2].public.spki
    entries = [KeyEntry("n", largest[:-2] + n.to_bytes(2, "big")) for n in range(MAX_KEYS)]
    full = SignedKeySet(KeySet(1, 1, (), tuple(entries)), {})
    host = keyring_of(keys[0]).with_revoked(keys[0].public.key_id)
    assert len(Keyring().with_set(full).keys) == MAX_KEYS
    with pytest.raises(TrustError, match="the keyring holds 256 keys"):
        host.with_set(full)
