"""A new key set takes effect only by the word of the old one and of its own: TUF's root rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.bundles import keyring_of, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import TrustError
from packager.format.keyset import KeyEntry, KeySet, SignedKeySet, encode_key_set
from packager.trust.keyring import Keyring, TrustedKey, encode_keyring, parse_keyring
from packager.trust.rotation import accept_first, follow

NAMES = ("alice", "bob", "carol", "quinn")
ALGORITHM = {"alice": "p256", "bob": "p256", "carol": "p256", "quinn": "ml-dsa-87"}


@dataclass(frozen=True)
class Team:
    """Four people: three with P-256 keys, and Quinn with ML-DSA-87."""

    keys: dict[str, SigningKey]

    def key_id(self, name: str) -> str:
        return self.keys[name].public.key_id

    def key_set(
        self,
        number: int,
        names: Sequence[str],
        threshold: int = 1,
        *,
        revoked: Collection[str] = (),
        require: Sequence[str] = (),
    ) -> KeySet:
        """A set of the people's keys, by name."""
        entries = [
            KeyEntry(name, self.keys[name].public.spki, revoked=name in revoked) for name in names
        ]
        return KeySet(number, threshold, tuple(sorted(require)), tuple(entries))

    def signed(self, key_set: KeySet, *signers: str) -> SignedKeySet:
        """The set, and a signature of each of the people named."""
        document = encode_key_set(key_set)
        return SignedKeySet(
            key_set, {self.key_id(name): self.keys[name].sign(document) for name in signers}
        )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    place = tmp_path_factory.mktemp("team")
    return Team({name: make_key(place / name, ALGORITHM[name]) for name in NAMES})


def following(team: Team, key_set: KeySet) -> Keyring:
    """The keyring of a host that follows ``key_set``."""
    return Keyring().with_set(team.signed(key_set))


def refused(keyring: Keyring, *chain: SignedKeySet) -> str:
    """Why the sets are not followed; the exit code is that of trust."""
    with pytest.raises(TrustError) as caught:
        follow(keyring, chain)
    assert caught.value.exit_code == 11
    return caught.value.message


def test_a_set_signed_by_the_keys_of_both_takes_effect_with_its_keys_and_policy(
    team: Team,
) -> None:
    host = following(team, team.key_set(1, ["alice", "bob"], 2))
    new = team.key_set(2, ["bob", "carol", "quinn"], 2, require=["ml-dsa-87"])
    after = follow(host, [team.signed(new, "alice", "bob", "quinn")])
    assert [trusted.name for trusted in after.keys] == ["bob", "carol", "quinn"]
    assert (after.threshold, after.require_algorithms) == (2, ("ml-dsa-87",))
    assert after.as_set().key_set == new


def test_20_a_set_signed_only_by_the_old_keys_is_refused(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice", "bob"], 2))
    new = team.signed(team.key_set(2, ["carol", "quinn"]), "alice", "bob")
    assert "signed by 0 of the 1 keys that set 2 itself requires" in refused(host, new)


def test_20_a_set_signed_only_by_the_new_keys_is_refused(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice", "bob"], 2))
    new = team.signed(team.key_set(2, ["carol", "quinn"], 2), "carol", "quinn")
    assert "signed by 0 of the 2 keys that set 1 requires" in refused(host, new)


def test_20_one_signature_short_of_the_old_threshold_is_too_few(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice", "bob"], 2))
    new = team.signed(team.key_set(2, ["alice", "carol"], 2), "alice", "carol")
    assert "signed by 1 of the 2 keys that set 1 requires" in refused(host, new)


@pytest.mark.parametrize(("demanding", "whose"), [(1, "set 1 requires"), (2, "set 2 itself")])
def test_20_a_kind_of_key_that_either_set_requires_must_have_signed(
    team: Team, demanding: int, whose: str
) -> None:
    sets = [
        team.key_set(n, NAMES, 2, require=["ml-dsa-87"] if n == demanding else []) for n in (1, 2)
    ]
    message = refused(following(team, sets[0]), team.signed(sets[1], "alice", "bob"))
    assert "no signature by a key of the kind ml-dsa-87" in message
    assert whose in message


@pytest.mark.parametrize(
    ("number", "fact"),
    [
        (4, "and set 3 is missing between them"),
        (2, "follows another set with that number"),
        (1, "follows set 2, a newer one"),
        (0, "follows set 2, a newer one"),
    ],
)
def test_16_no_number_of_a_set_is_left_out_and_none_comes_back(
    team: Team, number: int, fact: str
) -> None:
    host = following(team, team.key_set(2, ["alice"]))
    other = team.signed(team.key_set(number, ["alice", "bob"]), "alice", "bob")
    assert fact in refused(host, other)


def test_the_set_in_effect_may_come_again_and_changes_nothing(team: Team) -> None:
    current = team.key_set(1, ["alice"])
    host = following(team, current)
    assert follow(host, [team.signed(current, "alice")]) == host


def test_sets_in_any_order_are_followed_one_by_one_or_not_at_all(team: Team) -> None:
    sets = [team.key_set(1, ["alice"]), team.key_set(2, ["bob"]), team.key_set(3, ["carol"])]
    second, third = team.signed(sets[1], "alice", "bob"), team.signed(sets[2], "bob", "carol")
    host = following(team, sets[0])
    assert follow(host, [third, second]).as_set() == third
    assert "signed by 0 of the 1" in refused(host, second, team.signed(sets[2], "alice", "carol"))


def test_10_a_revoked_key_is_named_so_by_every_later_set(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice", "bob"], revoked=["bob"]))
    for later in (
        team.key_set(2, ["alice"]),
        team.key_set(2, ["alice", "bob"]),
        team.key_set(2, ["alice", "bob", "carol"], 2),
    ):
        message = refused(host, team.signed(later, "alice", "carol"))
        assert f"does not name key {team.key_id('bob')} (bob) as revoked" in message
    kept = team.key_set(2, ["carol", "bob"], revoked=["bob"])
    assert follow(host, [team.signed(kept, "alice", "carol")]).as_set().key_set == kept


def test_10_the_word_of_a_revoked_key_counts_for_neither_set(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice", "bob", "carol"], 2, revoked=["carol"]))
    new = team.key_set(2, ["alice", "bob", "carol"], 2, revoked=["carol"])
    assert "signed by 1 of the 2" in refused(host, team.signed(new, "alice", "carol"))


def test_10_what_this_host_revoked_no_set_brings_back(team: Team) -> None:
    bob = team.key_id("bob")
    host = following(team, team.key_set(1, ["alice", "bob"])).with_revoked(bob, "stolen")
    named = follow(host, [team.signed(team.key_set(2, ["alice", "bob"]), "alice")])
    silent = follow(host, [team.signed(team.key_set(2, ["alice"]), "alice")])
    for ring in (named, silent):
        found = ring.find(bob)
        assert found is not None
        assert (found.revoked, found.reason) == (True, "stolen")
        assert parse_keyring(encode_keyring(ring), "keyring.json") == ring
    by_the_thief = team.signed(team.key_set(2, ["bob"]), "bob")
    with pytest.raises(TrustError, match="signed by 0 of the 1 keys that set 1 requires"):
        follow(host, [by_the_thief])


def test_10_what_a_set_revokes_too_is_revoked_for_the_reason_that_the_set_gives(team: Team) -> None:
    bob = team.key_id("bob")
    host = following(team, team.key_set(1, ["alice", "bob"])).with_revoked(bob, "stolen")
    new = team.key_set(2, ["alice", "bob"], revoked=["bob"])
    new = replace(new, keys=(new.keys[0], replace(new.keys[1], reason="left the team")))
    found = follow(host, [team.signed(new, "alice")]).find(bob)
    assert found is not None
    assert (found.revoked, found.reason) == (True, "left the team")


def test_dates_do_not_count_so_that_a_host_that_lay_still_can_follow(team: Team) -> None:
    past = replace(
        team.key_set(1, ["alice"]).keys[0], not_before="2001-01-01", not_after="2002-01-01"
    )
    host = following(team, KeySet(1, 1, (), (past,)))
    new = team.key_set(2, ["bob"])
    assert follow(host, [team.signed(new, "alice", "bob")]).as_set().key_set == new


def test_07_a_signature_over_another_set_is_refused(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice"]))
    new = team.key_set(2, ["alice", "bob"])
    lying = SignedKeySet(new, team.signed(team.key_set(2, ["alice"]), "alice").signatures)
    assert "is not a signature by 'alice' over this set" in refused(host, lying)


def test_04_the_signature_of_a_stranger_counts_for_nothing(team: Team) -> None:
    host = following(team, team.key_set(1, ["alice"]))
    new = team.signed(team.key_set(2, ["alice", "bob"], 2), "alice", "carol", "quinn")
    assert "signed by 1 of the 2 keys that set 2 itself requires" in refused(host, new)


def test_a_first_set_must_be_signed_by_its_own_keys(team: Team) -> None:
    key_set = team.key_set(5, ["alice", "bob"], 2)
    assert accept_first(team.signed(key_set, "alice", "bob"), Keyring()).as_set().key_set == key_set
    with pytest.raises(TrustError, match="signed by 1 of the 2 keys that set 5 itself requires"):
        accept_first(team.signed(key_set, "alice"), Keyring())


def test_a_hosts_own_keyring_moves_as_set_0_and_stays_one_made_by_hand(team: Team) -> None:
    ring = keyring_of(*(team.keys[name] for name in NAMES), threshold=2)
    ring = ring.with_policy(2, ["p256", "ml-dsa-87"]).with_revoked(team.key_id("carol"), "lost")
    moved = accept_first(ring.as_set(), Keyring())
    assert moved == ring
    assert moved.signed_set is None


def test_first_contact_keeps_what_the_host_had_revoked(team: Team) -> None:
    ring = keyring_of(team.keys["alice"], team.keys["bob"]).with_revoked(team.key_id("bob"))
    new = accept_first(team.signed(team.key_set(1, ["carol"]), "carol"), ring)
    assert [(t.name, t.revoked) for t in new.keys] == [("carol", False), ("signer 1", True)]


def test_a_host_that_follows_a_set_changes_nothing_by_hand_but_to_revoke(team: Team) -> None:
    host = following(team, team.key_set(3, ["alice", "bob"], 1))
    for change in (
        lambda: host.with_key(TrustedKey("carol", team.keys["carol"].public)),
        lambda: host.without_key(team.key_id("bob")),
        lambda: host.with_policy(2, ()),
    ):
        with pytest.raises(TrustError, match="follows key set 3; only the next set"):
            change()
    assert host.with_revoked(team.key_id("bob")).signed_set == host.signed_set


@pytest.mark.parametrize("bent", ["key more", "threshold", "revoked", "signature"])
def test_15_a_keyring_that_is_not_what_its_set_says_is_damaged(team: Team, bent: str) -> None:
    key_set = team.key_set(1, ["alice", "bob"], 2)
    host = Keyring().with_set(team.signed(key_set, "alice", "bob"))
    more = (*host.keys, TrustedKey("mallory", team.keys["carol"].public))
    other = {
        "key more": replace(host, keys=more),
        "threshold": replace(host, threshold=1),
        "revoked": following(team, team.key_set(1, ["alice", "bob", "carol"], revoked=["carol"])),
        "signature": replace(
            host, signed_set=SignedKeySet(key_set, {team.key_id("bob"): bytes(1 << 14)})
        ),
    }[bent]
    if bent == "revoked":
        other = replace(other, keys=tuple(replace(k, revoked=False) for k in other.keys))
    with pytest.raises(TrustError, match="the keyring is damaged") as caught:
        parse_keyring(encode_keyring(other), "keyring.json")
    assert "airpack trust import FILE" in (caught.value.hint or "")


@dataclass(frozen=True)
class Link:
    """A set as it is drawn: whose keys, who signs it, and by how much its number is off."""

    members: tuple[str, ...]
    revoked: frozenset[str]
    threshold: int
    require: tuple[str, ...]
    signers: frozenset[str]
    step: int

    @property
    def good(self) -> set[str]:
        return {name for name in self.members if name not in self.revoked}

    def is_met_by(self, signers: frozenset[str], lost: frozenset[str]) -> bool:
        """The oracle: whether those signers, less what the host revoked, meet this set's policy."""
        counted = (self.good & signers) - lost
        kinds = {ALGORITHM[name] for name in counted}
        return len(counted) >= self.threshold and set(self.require) <= kinds


@st.composite
def links(draw: st.DrawFn) -> Link:
    members = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    revoked = draw(st.sets(st.sampled_from(members), max_size=len(members) - 1))
    good = sorted(set(members) - revoked)
    kinds = sorted({ALGORITHM[name] for name in good})
    missing = draw(st.sets(st.sampled_from(NAMES), max_size=2))
    return Link(
        members=tuple(members),
        revoked=frozenset(revoked),
        threshold=draw(st.integers(1, len(good))),
        require=tuple(sorted(draw(st.sets(st.sampled_from(kinds))))),
        signers=frozenset(NAMES) - missing,
        step=draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 2])),
    )


def is_sound(chain: Sequence[Link], lost: frozenset[str]) -> bool:
    """The oracle: each link is one step on, keeps what was revoked, and both thresholds hold."""
    return all(
        new.step == 1
        and old.revoked <= new.revoked
        and old.is_met_by(new.signers, lost)
        and new.is_met_by(new.signers, lost)
        for old, new in pairwise(chain)
    )


@settings(deadline=None)
@given(
    chain=st.lists(links(), min_size=2, max_size=4),
    lost=st.frozensets(st.sampled_from(NAMES), max_size=1),
)
def test_a_chain_of_sets_is_followed_if_and_only_if_each_link_meets_both_thresholds(
    team: Team, chain: list[Link], lost: frozenset[str]
) -> None:
    number, sets = 1, []
    for link in chain:
        number += link.step if sets else 0
        drawn = team.key_set(
            number, link.members, link.threshold, revoked=link.revoked, require=link.require
        )
        sets.append(team.signed(drawn, *sorted(link.signers)))
    host = Keyring().with_set(sets[0])
    keys = [replace(k, revoked=k.revoked or k.name in lost) for k in host.keys]
    host = replace(host, keys=tuple(keys))
    sound = is_sound(chain, lost & set(chain[0].members))
    event("sound" if sound else "not sound")
    if not sound:
        refused(host, *sets[1:])
        return
    after = follow(host, sets[1:])
    assert after.as_set() == sets[-1]
    assert parse_keyring(encode_keyring(after), "keyring.json") == after
