"""Signatures, the catalogue of what may be wrong with them, and the order of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import keyring_of, make_bundle, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import DigestMismatchError, MalformedError, PolicyError, TrustError
from packager.format.bundle import INDEX_NAME, LOCK_NAME, Bundle, encode_bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.sums import encode_sums, signature_name
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.keys import MAX_SIGNATURE_SIZE
from packager.trust.verify import Evidence, Signer, verify_bundle

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class People:
    """Three with P-256 keys, one with an ML-DSA-87 key, and what they sign."""

    alice: SigningKey
    bob: SigningKey
    mallory: SigningKey
    quinn: SigningKey
    index: Bundle

    def evidence(self, *signers: SigningKey, index: bytes | None = None) -> Evidence:
        """A bundle signed by ``signers``; its index is ``self.index`` unless given."""
        raw = encode_bundle(self.index) if index is None else index
        digests = {volume.name: Digest.of(b"") for volume in self.index.volumes}
        sums = encode_sums({INDEX_NAME: Digest.of(raw), **digests})
        return Evidence(sums, {key.public.key_id: key.sign(sums) for key in signers}, raw)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("people")
    names = ("alice", "bob", "mallory", "quinn")
    algorithms = ("p256", "p256", "p256", "ml-dsa-87")
    keys = [make_key(folder / n, a) for n, a in zip(names, algorithms, strict=True)]
    made = make_bundle(folder, keys[:1])
    return People(*keys, parse_bundle((made / INDEX_NAME).read_bytes()))


def refused(evidence: Evidence, keyring: Keyring, *, now: datetime = NOW) -> TrustError:
    """The error that ends the matter; its exit code is that of trust."""
    with pytest.raises(TrustError) as caught:
        verify_bundle(evidence, keyring, now=now)
    assert caught.value.exit_code == 11
    return caught.value


def test_a_signed_bundle_is_believed_and_says_who_signed_it(people: People) -> None:
    evidence = people.evidence(people.alice)
    verified = verify_bundle(evidence, keyring_of(people.alice), now=NOW)
    assert verified.bundle == people.index
    assert verified.signers == (
        Signer(people.alice.public.key_id, "signer 0", people.alice.public),
    )
    assert verified.digest == Digest.of(evidence.sums)
    assert verified.sums[INDEX_NAME] == Digest.of(evidence.index)


def test_p256_and_ml_dsa_87_can_both_be_demanded(people: People) -> None:
    ring = keyring_of(people.alice, people.quinn, threshold=2)
    both = people.evidence(people.alice, people.quinn)
    assert len(verify_bundle(both, ring, now=NOW).signers) == 2
    for one in (people.alice, people.quinn):
        assert "1 of the 2" in refused(people.evidence(one), ring).message


def test_01_without_a_signature_nothing_is_believed(people: People) -> None:
    assert "no signature" in refused(people.evidence(), keyring_of(people.alice)).message


def test_a_host_that_trusts_no_key_believes_nothing_and_says_what_to_type(people: People) -> None:
    error = refused(people.evidence(people.alice), Keyring())
    assert "trusts no key" in error.message
    assert error.hint is not None
    assert "airpack trust add" in error.hint


@pytest.mark.parametrize("signer", ["alice", "quinn"])
@pytest.mark.parametrize(
    ("keep", "fact"),
    [
        pytest.param(lambda _: b"", "is empty", id="02-empty"),
        pytest.param(lambda s: s[:-1], "not a signature", id="03-a-byte-short"),
        pytest.param(lambda s: s[:8], "not a signature", id="03-eight-bytes"),
        pytest.param(lambda s: s + b"\0", "not a signature", id="a-byte-long"),
        pytest.param(lambda s: bytes(len(s)), "not a signature", id="zeros"),
        pytest.param(lambda _: bytes(MAX_SIGNATURE_SIZE + 1), "too large", id="huge"),
    ],
)
def test_02_03_an_empty_truncated_or_swollen_signature_is_named(
    people: People, signer: str, keep: object, fact: str
) -> None:
    key: SigningKey = getattr(people, signer)
    whole = people.evidence(key)
    assert callable(keep)
    cut = {key.public.key_id: keep(whole.signatures[key.public.key_id])}
    error = refused(replace(whole, signatures=cut), keyring_of(key))
    assert fact in error.message
    assert signature_name(key.public.key_id) in error.message


@given(data=st.data())
def test_no_bit_of_a_signature_can_be_flipped(people: People, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([people.alice, people.quinn]))
    whole = people.evidence(key)
    signature = bytearray(whole.signatures[key.public.key_id])
    # An ECDSA signature is of another size each time, which a strategy must not depend on.
    bit = data.draw(st.integers(0, (1 << 16) - 1)) % (len(signature) * 8)
    signature[bit // 8] ^= 1 << bit % 8
    damaged = replace(whole, signatures={key.public.key_id: bytes(signature)})
    assert "not a signature" in refused(damaged, keyring_of(key)).message


def test_04_an_unknown_key_is_named_and_not_believed(people: People) -> None:
    error = refused(people.evidence(people.mallory), keyring_of(people.alice))
    assert people.mallory.public.key_id in error.message
    assert "none of which this host trusts" in error.message


def test_a_stranger_beside_a_trusted_signer_does_no_harm_and_counts_for_nothing(
    people: People,
) -> None:
    evidence = people.evidence(people.alice, people.mallory)
    verified = verify_bundle(evidence, keyring_of(people.alice), now=NOW)
    assert [signer.key_id for signer in verified.signers] == [people.alice.public.key_id]
    ring = keyring_of(people.alice, people.bob, threshold=2)
    assert "1 of the 2" in refused(evidence, ring).message


def renamed(evidence: Evidence, names: Mapping[str, str]) -> Evidence:
    """The same signatures under other key ids."""
    return replace(evidence, signatures={names[k]: s for k, s in evidence.signatures.items()})


def test_06_a_signature_under_another_trusted_keys_name_is_refused(people: People) -> None:
    alice, bob = people.alice.public.key_id, people.bob.public.key_id
    lying = renamed(people.evidence(people.alice), {alice: bob})
    error = refused(lying, keyring_of(people.alice, people.bob))
    assert signature_name(bob) in error.message


def test_06_a_signature_under_an_unknown_name_does_not_count(people: People) -> None:
    lying = renamed(people.evidence(people.alice), {people.alice.public.key_id: "0" * 16})
    assert "none of which" in refused(lying, keyring_of(people.alice)).message


@pytest.mark.parametrize("what", ["index", "older sums", "nothing"])
def test_07_a_signature_over_another_file_is_refused(people: People, what: str) -> None:
    evidence = people.evidence(people.alice)
    older = people.evidence(index=encode_bundle(replace(people.index, sequence=9)))
    signed = {"index": evidence.index, "older sums": older.sums, "nothing": b""}[what]
    wrong = {people.alice.public.key_id: people.alice.sign(signed)}
    error = refused(replace(evidence, signatures=wrong), keyring_of(people.alice))
    assert "not a signature" in error.message


def test_08_one_key_under_two_names_is_one_signer(people: People) -> None:
    evidence = people.evidence(people.alice)
    (signature,) = evidence.signatures.values()
    r, s = decode_dss_signature(signature)
    mirrored = encode_dss_signature(r, P256_ORDER - s)  # holds too, as any ECDSA one does
    assert people.alice.public.verifies(mirrored, evidence.sums)
    twice = {people.alice.public.key_id: signature, "f" * 16: mirrored, "e" * 16: signature}
    ring = keyring_of(people.alice, people.bob, threshold=2)
    assert "1 of the 2" in refused(replace(evidence, signatures=twice), ring).message


def test_08_one_key_twice_in_a_keyring_is_one_signer(people: People) -> None:
    trusted = TrustedKey("alice", people.alice.public)
    ring = Keyring(2, (trusted, replace(trusted, name="also alice")))
    assert "1 of the 2" in refused(people.evidence(people.alice), ring).message


@pytest.mark.parametrize(
    ("key", "moment", "fact"),
    [
        ({"not_before": NOW}, NOW - timedelta(seconds=1), "is not valid before 2026-12-01"),
        ({"not_after": NOW}, NOW, "was valid until 2026-12-01"),
        ({"revoked": True}, NOW, "is revoked"),
    ],
    ids=["not-yet-valid", "expired", "revoked"],
)
def test_10_a_key_that_may_not_be_used_counts_as_no_signature(
    people: People, key: dict[str, object], moment: datetime, fact: str
) -> None:
    bad = replace(TrustedKey("alice", people.alice.public), **key)  # type: ignore[arg-type]
    alone = refused(people.evidence(people.alice), Keyring(1, (bad,)), now=moment)
    assert fact in alone.message
    assert people.alice.public.key_id in alone.message
    pair = Keyring(2, (bad, TrustedKey("bob", people.bob.public)))
    both = people.evidence(people.alice, people.bob)
    assert "1 of the 2" in refused(both, pair, now=moment).message
    assert len(verify_bundle(both, replace(pair, threshold=1), now=moment).signers) == 1


def test_10_a_key_is_valid_from_its_first_second_to_its_last(people: People) -> None:
    until = NOW + timedelta(days=1)
    ring = Keyring(1, (TrustedKey("alice", people.alice.public, NOW, until),))
    evidence = people.evidence(people.alice)
    for moment in (NOW, until - timedelta(seconds=1)):
        assert verify_bundle(evidence, ring, now=moment).signers


def test_the_release_policy_asks_for_more_signers_than_the_keyring(people: People) -> None:
    index = encode_bundle(replace(people.index, signers=2))
    ring = keyring_of(people.alice, people.bob)
    error = refused(people.evidence(people.alice, index=index), ring)
    assert "1 of the 2" in error.message
    assert "release policy" in error.message
    both = people.evidence(people.alice, people.bob, index=index)
    assert len(verify_bundle(both, ring, now=NOW).signers) == 2


def test_the_release_policy_cannot_lower_the_keyrings_threshold(people: People) -> None:
    ring = keyring_of(people.alice, people.bob, threshold=2)
    assert people.index.signers == 1
    assert "the keyring requires" in refused(people.evidence(people.alice), ring).message


def test_each_step_ends_the_matter_before_the_next_is_looked_at(people: People) -> None:
    """Everything is wrong at first; each repair brings up what the next step finds."""
    alice, ring = people.alice, keyring_of(people.alice)
    expired = replace(people.index, expires="2026-11-30", created="2026-11-24T00:00:00Z")
    greedy = replace(expired, signers=2)

    def decide(sums: bytes, index: bytes, *, by: SigningKey = alice) -> None:
        verify_bundle(Evidence(sums, {by.public.key_id: by.sign(sums)}, index), ring, now=NOW)

    def listed(index: bytes, *, volumes: bool) -> bytes:
        names = [volume.name for volume in people.index.volumes] if volumes else []
        digests = {name: Digest.of(b"") for name in names}
        return encode_sums({INDEX_NAME: Digest.of(index), **digests})

    garbage = b"[" * 100_000
    with pytest.raises(TrustError, match="none of which"):
        decide(b"\xff\n", garbage, by=people.mallory)
    with pytest.raises(MalformedError, match="SHA256SUMS: not plain ASCII"):
        decide(b"\xff\n", garbage)
    with pytest.raises(MalformedError, match=r"does not list bundle\.json"):
        decide(encode_sums({"other": Digest.of(garbage)}), garbage)
    with pytest.raises(DigestMismatchError, match=r"bundle\.json: not the file that was signed"):
        decide(listed(b"", volumes=False), garbage)
    with pytest.raises(MalformedError, match=r"bundle\.json: nested"):
        decide(listed(garbage, volumes=False), garbage)
    raw = encode_bundle(greedy)
    with pytest.raises(TrustError, match="release policy"):
        decide(listed(raw, volumes=False), raw)
    raw = encode_bundle(expired)
    with pytest.raises(MalformedError, match=r"SHA256SUMS: does not list payload\.00001"):
        decide(listed(raw, volumes=False), raw)
    with pytest.raises(PolicyError, match="expired"):
        decide(listed(raw, volumes=True), raw)
    raw = encode_bundle(replace(expired, expires=None))
    decide(listed(raw, volumes=True), raw)


def test_a_lock_that_is_not_the_one_the_index_names_is_refused(people: People) -> None:
    index = encode_bundle(people.index)
    digests = {volume.name: Digest.of(b"") for volume in people.index.volumes}

    def decide(lock: Digest) -> Bundle:
        sums = encode_sums({INDEX_NAME: Digest.of(index), LOCK_NAME: lock, **digests})
        signature = {people.alice.public.key_id: people.alice.sign(sums)}
        evidence = Evidence(sums, signature, index)
        return verify_bundle(evidence, keyring_of(people.alice), now=NOW).bundle

    with pytest.raises(MalformedError, match=r"bundle\.json: lock: not the lock\.json that SHA"):
        decide(Digest.of(b"another lock"))
    assert decide(people.index.lock) == people.index
