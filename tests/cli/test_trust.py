"""Whose word a host takes: the policy, the list, and a team's key sets from host to host."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key

from packager.connected.signing.key_sets import Changes, next_key_set, sign_key_set
from packager.connected.signing.keys import SigningKey, open_key
from packager.format.keyset import KeyEntry, KeySet, SignedKeySet, encode_key_set
from packager.store.key_sets import write_new_key_set
from packager.trust.keys import in_groups

from .conftest import AIRPACK, Host, snapshot


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two key pairs, of both kinds."""
    directory = tmp_path_factory.mktemp("team")
    make_key(directory / "alice")
    make_key(directory / "quinn", "ml-dsa-87")
    return directory


@pytest.fixture(scope="module")
def alice(place: Path) -> SigningKey:
    return open_key(place / "alice", None)


@pytest.fixture(scope="module")
def quinn(place: Path) -> SigningKey:
    return open_key(place / "quinn", None)


def entry(key: SigningKey, name: str) -> KeyEntry:
    return KeyEntry(name, key.public.spki)


def write_set(path: Path, key_set: KeySet, *signers: SigningKey) -> Path:
    write_new_key_set(path, SignedKeySet(key_set, {}))
    for key in signers:
        sign_key_set(path, key)
    return path


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(host: Host) -> list[str]:
    return [
        json.loads(line)["event"] for line in (host.home / "log.jsonl").read_text().split("\n")[:-1]
    ]


def kept(host: Host) -> dict[str, bytes]:
    """All that a change of trust may change."""
    return {name: data for name, data in snapshot(host.home).items() if name != "lock"}


def test_a_policy_of_both_kinds_is_kept_listed_and_enforced(
    host: Host, place: Path, alice: SigningKey, quinn: SigningKey, tmp_path: Path
) -> None:
    assert host.airpack("trust", "add", place / "alice.pub", "--not-after", "2090-01-01").code == 0
    kinds = ("--require-algorithm", "ml-dsa-87", "--require-algorithm", "p256")
    refused = host.airpack("trust", "policy", "--threshold", "1", *kinds)
    assert refused.code == 11
    assert "no usable key here is of the kind ml-dsa-87" in refused.err
    assert "try: airpack trust add FILE.pub, with a key that `airpack keys generate" in refused.err
    assert host.airpack("trust", "add", place / "quinn.pub").code == 0
    assert host.airpack("trust", "policy", "--threshold", "1", *kinds).code == 0
    listed = host.airpack("trust", "list", "--json").document
    assert listed["require_algorithms"] == ["ml-dsa-87", "p256"]
    assert [(k["name"], k["not_after"], k["valid_now"]) for k in listed["keys"]] == [
        ("alice", "2090-01-01T00:00:00Z", True),
        ("quinn", None, True),
    ]
    bundle = make_bundle(tmp_path / "one", [alice])
    verified = host.airpack("verify", bundle)
    assert verified.code == 11
    assert f"ask quinn (key {quinn.public.key_id}) for a signature" in verified.err
    assert events(host) == ["trust add", "trust add", "trust policy"]


def test_10_a_revoked_key_stays_listed_and_cannot_be_added_again(
    host: Host, place: Path, alice: SigningKey
) -> None:
    key_id = alice.public.key_id
    host.airpack("trust", "add", place / "alice.pub")
    assert host.airpack("trust", "revoke", key_id, "--reason", "stolen").code == 0
    again = host.airpack("trust", "add", place / "alice.pub")
    assert again.code == 11
    assert f"key {key_id} is revoked here" in again.err
    listed = host.airpack("trust", "list").out
    assert "revoked: stolen" in listed
    assert key_id in listed


def test_10_a_stolen_key_of_two_that_must_sign_is_revoked_with_a_warning(
    host: Host, place: Path, alice: SigningKey
) -> None:
    for name in ("alice", "quinn"):
        host.airpack("trust", "add", place / f"{name}.pub")
    host.airpack("trust", "policy", "--threshold", "2")
    done = host.airpack("trust", "revoke", alice.public.key_id)
    assert done.code == 0
    assert "warning: nothing can be installed now: 1 keys could never give the 2" in done.err
    assert host.airpack("trust", "list", "--json").document["threshold"] == 2


@pytest.mark.parametrize("words", [("--not-after", "tomorrow"), ("--not-before", "2026-1-4")])
def test_a_date_that_is_none_is_refused(host: Host, place: Path, words: tuple[str, ...]) -> None:
    done = host.airpack("trust", "add", place / "alice.pub", *words)
    assert done.code == 2
    assert "is not a date" in done.err
    assert not host.home.exists()


def test_15_a_damaged_keyring_is_refused_with_a_way_out(host: Host, place: Path) -> None:
    host.airpack("trust", "add", place / "alice.pub")
    keyring = host.home / "trust" / "keyring.json"
    keyring.write_bytes(keyring.read_bytes()[:-1])
    before = kept(host)
    done = host.airpack("trust", "add", place / "quinn.pub")
    assert done.code == 11
    assert f"{keyring}: the keyring is damaged" in done.err
    assert f"try: remove {keyring}, then take each key again" in done.err
    assert kept(host) == before


def test_a_first_set_is_taken_by_its_fingerprint_and_nothing_else(
    host: Host, tmp_path: Path, alice: SigningKey
) -> None:
    first = next_key_set(None, Changes(added=(entry(alice, "alice"),)))
    path = write_set(tmp_path / "keys-1.json", first, alice)
    right = fingerprint(path)
    nobody = host.airpack("trust", "import", path)
    assert nobody.code == 2
    groups = " ".join(right[start : start + 4] for start in range(0, 64, 4))
    assert groups in nobody.err
    wrong = host.airpack("trust", "import", path, "--fingerprint", "0" * 64)
    assert wrong.code == 11
    assert not (host.home / "trust").exists()
    done = host.airpack("trust", "import", path, "--fingerprint", groups.upper(), "--json")
    assert (done.code, done.document["number"]) == (0, 1)
    by_hand = host.airpack("trust", "policy", "--threshold", "1")
    assert by_hand.code == 11
    assert "follows key set 1" in by_hand.err


def test_20_a_new_set_that_only_old_or_only_new_keys_signed_leaves_the_old_one_in_effect(
    host: Host, tmp_path: Path, alice: SigningKey, quinn: SigningKey
) -> None:
    first = next_key_set(None, Changes(added=(entry(alice, "alice"),)))
    second = next_key_set(
        first, Changes(added=(entry(quinn, "quinn"),), removed=(alice.public.key_id,))
    )
    current = write_set(tmp_path / "keys-1.json", first, alice)
    assert host.airpack("trust", "import", current, "--yes").code == 0
    before = kept(host)
    for folder, signer in (("old", alice), ("new", quinn)):
        (tmp_path / folder).mkdir()
        path = write_set(tmp_path / folder / "keys-2.json", second, signer)
        refused = host.airpack("trust", "import", path, "--yes")
        assert refused.code == 11
        assert "key set 2: signed by 0 of the 1 keys" in refused.err
        assert kept(host) == before
    sign_key_set(tmp_path / "old" / "keys-2.json", quinn)
    assert host.airpack("trust", "import", tmp_path / "old" / "keys-2.json").code == 0
    bundle = make_bundle(tmp_path / "b", [alice])
    assert "none of which this host trusts" in host.airpack("verify", bundle).err
    assert events(host) == ["trust import", "trust import"]


def test_a_set_moves_to_a_new_host_with_its_signatures(
    host: Host, tmp_path: Path, alice: SigningKey
) -> None:
    first = next_key_set(None, Changes(added=(entry(alice, "alice"),)))
    host.airpack("trust", "import", write_set(tmp_path / "k.json", first, alice), "--yes")
    exported = tmp_path / "exported.json"
    done = host.airpack("trust", "export", "-o", exported)
    assert done.code == 0
    assert exported.read_bytes() == encode_key_set(first)
    other = Host(tmp_path / "other")
    assert (
        other.airpack("trust", "import", exported, "--fingerprint", fingerprint(exported)).code == 0
    )
    lists = [h.airpack("trust", "list", "--json").document for h in (host, other)]
    assert lists[0] == lists[1]
    assert host.airpack("trust", "export", "-o", exported).code == 2


def test_10_an_export_tells_what_is_revoked_here_and_not_by_the_set(
    host: Host, tmp_path: Path, alice: SigningKey, quinn: SigningKey
) -> None:
    both = Changes(added=(entry(alice, "alice"), entry(quinn, "quinn")))
    first = write_set(tmp_path / "keys-1.json", next_key_set(None, both), alice)
    host.airpack("trust", "import", first, "--yes")
    host.airpack("trust", "revoke", quinn.public.key_id)
    done = host.airpack("trust", "export", "-o", tmp_path / "exported.json")
    assert f"airpack trust revoke {quinn.public.key_id}" in done.err
    assert alice.public.key_id not in done.err


def test_05_a_first_set_that_came_with_a_bundle_is_not_taken(
    host: Host, tmp_path: Path, alice: SigningKey
) -> None:
    bundle = make_bundle(tmp_path / "medium", [alice])
    first = next_key_set(None, Changes(added=(entry(alice, "alice"),)))
    path = write_set(bundle / "keys-1.json", first, alice)
    done = host.airpack("trust", "import", path, "--yes")
    assert done.code == 11
    assert "came with the bundle" in done.err
    assert not host.home.exists()


def test_keys_lost_beyond_the_threshold_begin_anew_and_revocations_stay(
    host: Host, tmp_path: Path, alice: SigningKey, quinn: SigningKey
) -> None:
    both = Changes(added=(entry(alice, "alice"), entry(quinn, "quinn")))
    first = write_set(tmp_path / "keys-1.json", next_key_set(None, both), alice)
    host.airpack("trust", "import", first, "--yes")
    host.airpack("trust", "revoke", alice.public.key_id)
    other = write_set(
        tmp_path / "anew.json", next_key_set(None, Changes(added=(entry(quinn, "q"),))), quinn
    )
    assert host.airpack("trust", "import", other, "--yes").code == 11
    assert host.airpack("trust", "import", other, "--yes", "--anew").code == 0
    keys = host.airpack("trust", "list", "--json").document["keys"]
    assert [(k["name"], k["revoked"]) for k in keys] == [("q", False), ("alice", True)]


def test_a_set_is_begun_signed_and_shown(
    host: Host, place: Path, tmp_path: Path, alice: SigningKey
) -> None:
    path = tmp_path / "keys-1.json"
    begun = host.airpack("keys", "set", "new", path, "--add", f"Alice={place / 'alice.pub'}")
    assert begun.code == 0
    shown = host.airpack("keys", "set", "show", path, "--json").document
    assert (shown["complete"], shown["fingerprint"]) == (False, fingerprint(path))
    assert host.airpack("keys", "set", "sign", path, "--key", place / "alice").code == 0
    assert host.airpack("keys", "set", "show", path, "--json").document["complete"] is True
    after = tmp_path / "keys-2.json"
    added = ("--add", place / "quinn.pub", "--threshold", "2", "--require-algorithm", "ml-dsa-87")
    assert host.airpack("keys", "set", "new", after, "--after", path, *added).code == 0
    lacking = host.airpack("keys", "set", "show", after, "--after", path, "--json").document
    assert "signed by 0 of the 1 keys that set 1 requires" in lacking["lacking"]
    loose = host.airpack("keys", "set", "new", tmp_path / "x", "--require-algorithm", "p256")
    assert loose.code == 2
    assert not host.home.exists()


def test_a_passphrase_comes_from_a_descriptor(host: Host, tmp_path: Path) -> None:
    key, sums = tmp_path / "k", make_bundle(tmp_path / "out", [])
    made = host.airpack("keys", "generate", key, "--passphrase-fd", "0", stdin="open sesame\n")
    assert made.code == 0
    assert "ENCRYPTED" in key.read_text()
    signed = host.airpack("sign", sums, "--key", key, "--passphrase-fd", "0", stdin="open sesame\n")
    assert signed.code == 0
    both = ("--passphrase-fd", "0", "--passphrase-file", tmp_path / "f")
    assert host.airpack("sign", sums, "--key", key, *both).code == 2


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 130)])
def test_on_a_terminal_a_person_is_shown_the_first_set_and_asked(
    host: Host, tmp_path: Path, alice: SigningKey, answer: bytes, code: int
) -> None:
    first = next_key_set(None, Changes(added=(entry(alice, "alice"),)))
    path = write_set(tmp_path / "keys-1.json", first, alice)
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, answer)
        done = subprocess.run(
            [*AIRPACK, "trust", "import", "-q", path],
            stdin=terminal, env=host.environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert done.returncode == code
    assert in_groups(fingerprint(path)) in done.stderr
    assert f"{alice.public.key_id}  p256  alice" in done.stderr
    assert "Is this what the sender read out?" in done.stderr
    assert (host.home / "trust" / "keyring.json").exists() == (code == 0)
