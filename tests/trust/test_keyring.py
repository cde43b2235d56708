"""The keyring: who is trusted, how many of them must sign, and a file that must not be bent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import keyring_of, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import TrustError
from packager.format import canonical
from packager.format.keyset import KeyEntry, KeySet
from packager.trust.keyring import (
    MAX_KEYRING_SIZE,
    MAX_KEYS,
    MAX_NAME_CHARACTERS,
    Keyring,
    TrustedKey,
    encode_keyring,
    keyring_of_set,
    parse_keyring,
)
from packager.trust.keys import PublicKey, parse_spki

WHERE = "trust/keyring.json"
NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[SigningKey]:
    folder = tmp_path_factory.mktemp("keys")
    return [make_key(folder / "a"), make_key(folder / "b"), make_key(folder / "c", "ml-dsa-87")]


def test_a_keyring_is_read_as_it_was_written(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys, threshold=2).with_revoked(keys[1].public.key_id)
    dated = replace(ring.keys[0], not_before=NOW, not_after=NOW.replace(year=2027), name="Zoë")
    ring = replace(ring, keys=(dated, *ring.keys[1:]))
    assert parse_keyring(encode_keyring(ring), WHERE) == ring
    assert parse_keyring(encode_keyring(Keyring()), WHERE) == Keyring()


@pytest.mark.parametrize("threshold", [-1, 0, 4])
def test_09_a_threshold_that_no_signers_could_meet_or_any_would_is_refused(
    keys: list[SigningKey], threshold: int
) -> None:
    ring = keyring_of(*keys)
    with pytest.raises(TrustError, match=f"threshold {threshold} is not between 1 and 3 keys"):
        ring.with_threshold(threshold)
    with pytest.raises(TrustError, match=r"trust/keyring\.json: .*threshold"):
        parse_keyring(encode_keyring(replace(ring, threshold=threshold)), WHERE)


def test_09_a_file_with_a_threshold_above_its_one_key_is_damaged(keys: list[SigningKey]) -> None:
    for ring in (keyring_of(keys[0]), Keyring()):
        with pytest.raises(TrustError, match=r"trust/keyring\.json: .*threshold"):
            parse_keyring(encode_keyring(replace(ring, threshold=2)), WHERE)


def test_keys_that_were_added_by_hand_are_set_0(keys: list[SigningKey]) -> None:
    signed = keyring_of(*keys, threshold=2).as_set()
    assert (signed.key_set.number, signed.key_set.threshold, signed.signatures) == (0, 2, {})
    assert keyring_of_set(signed.key_set) == keyring_of(*keys, threshold=2)


def test_09_removing_a_key_cannot_leave_a_threshold_out_of_reach(keys: list[SigningKey]) -> None:
    ring = keyring_of(*keys[:2], threshold=2)
    with pytest.raises(TrustError, match="1 keys could never give the 2 signatures") as caught:
        ring.without_key(keys[0].public.key_id)
    assert caught.value.hint == "airpack trust policy --threshold 1"
    lowered = ring.with_threshold(1).without_key(keys[0].public.key_id)
    assert lowered.find(keys[0].public.key_id) is None
    assert lowered.without_key(keys[1].public.key_id) == Keyring()


def test_10_a_revoked_key_stays_revoked(keys: list[SigningKey]) -> None:
    key = keys[0].public
    ring = keyring_of(*keys).with_revoked(key.key_id)
    with pytest.raises(TrustError, match="is revoked here"):
        ring.with_key(TrustedKey("again", key))
    for later in (ring.with_run_keys([key]), ring.with_revoked(keys[1].public.key_id)):
        found = later.find(key.key_id)
        assert found is not None
        assert found.fault(NOW) == "is revoked"
    with pytest.raises(TrustError, match="not between 1 and 2 keys"):
        ring.with_threshold(3)


def test_a_key_named_for_one_run_is_added_once(keys: list[SigningKey]) -> None:
    ring = keyring_of(keys[0])
    run = ring.with_run_keys([keys[0].public, keys[1].public, keys[1].public])
    assert [trusted.name for trusted in run.keys] == ["signer 0", "named for this run"]
    assert run.threshold == ring.threshold


def test_a_key_that_is_not_there_can_be_neither_removed_nor_revoked() -> None:
    for change in (Keyring().without_key, Keyring().with_revoked):
        with pytest.raises(TrustError, match="no trusted key has the id abcd"):
            change("abcd")


def two_encodings() -> tuple[bytes, bytes]:
    """The SPKI of a new key, as airpack writes it and with its point compressed."""
    private = ec.generate_private_key(ec.SECP256R1())
    plain = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    algorithm = plain[2 : 2 + 21]
    body = algorithm + b"\x03" + bytes([len(point) + 1]) + b"\0" + point
    return plain, b"\x30" + bytes([len(body)]) + body


def test_08_one_key_in_two_encodings_is_not_two_keys_of_a_set() -> None:
    plain, compressed = two_encodings()
    for spkis in ((compressed,), (plain, compressed)):
        entries = tuple(KeyEntry(f"key {n}", spki) for n, spki in enumerate(spkis))
        with pytest.raises(TrustError, match="not in the one encoding that airpack writes"):
            keyring_of_set(KeySet(1, 1, (), entries))
    assert keyring_of_set(KeySet(1, 1, (), (KeyEntry("key", plain),))).keys


def test_08_another_encoding_of_a_key_is_the_same_key() -> None:
    plain, compressed = two_encodings()
    assert compressed != plain
    assert parse_spki(compressed, "short") == parse_spki(plain, "long")
    ring = Keyring().with_key(TrustedKey("long", parse_spki(plain, "long")))
    with pytest.raises(TrustError, match="is trusted already, as 'long'"):
        ring.with_key(TrustedKey("short", parse_spki(compressed, "short")))


@pytest.mark.parametrize(
    "name", ["", "a\nb", "\x1b[2J", "\u202egnp.exe", "\udcff", "x" * (MAX_NAME_CHARACTERS + 1)]
)
def test_a_name_that_could_not_be_read_back_or_shown_is_refused(
    keys: list[SigningKey], name: str
) -> None:
    with pytest.raises(TrustError, match="is no name for a key") as caught:
        Keyring().with_key(TrustedKey(name, keys[0].public))
    assert caught.value.message.isprintable()


def test_the_fullest_keyring_can_be_read_again(keys: list[SigningKey]) -> None:
    largest = keys[2].public
    ring = Keyring()
    for number in range(MAX_KEYS):
        # Keys that differ, of the largest kind; nobody has signed with them.
        other = PublicKey(largest.algorithm, largest.spki[:-2] + number.to_bytes(2, "big"))
        ring = ring.with_key(TrustedKey("n" * MAX_NAME_CHARACTERS, other))
    data = encode_keyring(ring)
    assert len(data) <= MAX_KEYRING_SIZE
    assert parse_keyring(data, WHERE) == ring
    with pytest.raises(TrustError, match="which is its limit"):
        ring.with_key(TrustedKey("one more", keys[0].public))


@given(data=st.data())
def test_15_a_truncated_keyring_is_damaged(keys: list[SigningKey], data: st.DataObject) -> None:
    whole = encode_keyring(keyring_of(*keys))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(TrustError, match=r"trust/keyring\.json: the keyring is damaged"):
        parse_keyring(cut, WHERE)


@given(data=st.data())
def test_15_a_changed_byte_is_damage_or_says_something_else(
    keys: list[SigningKey], data: st.DataObject
) -> None:
    whole = encode_keyring(keyring_of(*keys))
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(TrustError):
        assert encode_keyring(parse_keyring(bytes(changed), WHERE)) == bytes(changed)


@pytest.mark.parametrize(
    "change", ["twice", "left out", "unknown field", "not base64", "no key", "bad date"]
)
def test_15_a_keyring_that_somebody_edited_is_refused_with_its_place(
    keys: list[SigningKey], change: str
) -> None:
    document = canonical.decode(encode_keyring(keyring_of(keys[0])), what="", max_size=1 << 20)
    assert isinstance(document, dict)
    entries = document["keys"]
    assert isinstance(entries, list)
    entry = entries[0]
    assert isinstance(entry, dict)
    if change == "twice":
        entries.append(dict(entry))
    elif change == "left out":
        del entry["revoked"]
    else:
        entry |= {
            "unknown field": {"extra": 1},
            "not base64": {"spki": "!"},
            "no key": {"spki": "AAAA"},
            "bad date": {"not_after": "tomorrow"},
        }[change]  # type: ignore[arg-type]
    with pytest.raises(TrustError, match=r"\Atrust/keyring\.json: the keyring is damaged: "):
        parse_keyring(canonical.encode(document), WHERE)
