"""Key sets on the connected side: begun from the one before, signed by one after the other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.bundles import make_key

from packager.connected.signing.key_sets import (
    Changes,
    import_key_set_signature,
    next_key_set,
    sign_key_set,
)
from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError, MalformedError, TrustError, UsageError
from packager.format.keyset import MAX_SIGNATURES, KeyEntry, KeySet, SignedKeySet
from packager.store.key_sets import read_key_set, write_new_key_set
from packager.trust.keyring import Keyring
from packager.trust.rotation import accept_first, follow


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKey]:
    return [make_key(tmp_path / "a"), make_key(tmp_path / "b"), make_key(tmp_path / "c")]


def entry(key: SigningKey, name: str) -> KeyEntry:
    return KeyEntry(name, key.public.spki)


def first_set(keys: list[SigningKey]) -> KeySet:
    """Set 1, of the first two keys, both of which must sign."""
    added = (entry(keys[0], "alice"), entry(keys[1], "bob"))
    return next_key_set(None, Changes(added=added, policy=(2, ())))


def written(path: Path, key_set: KeySet) -> Path:
    write_new_key_set(path, SignedKeySet(key_set, {}))
    return path


def test_a_set_goes_from_hand_to_hand_and_is_followed_by_a_host(
    tmp_path: Path, keys: list[SigningKey]
) -> None:
    a, b, c = keys
    path = written(tmp_path / "keys-1.json", first_set(keys))
    sign_key_set(path, a)
    with pytest.raises(TrustError, match="signed by 1 of the 2"):
        accept_first(read_key_set(path), Keyring())
    command = ["openssl", "dgst", "-sha256", "-sign", tmp_path / "b", "-out", tmp_path / "sig"]
    subprocess.run([*command, path], check=True)
    assert import_key_set_signature(path, tmp_path / "sig", tmp_path / "b.pub") == b.public.key_id
    host = accept_first(read_key_set(path), Keyring())

    changes = Changes(added=(entry(c, "carol"),), revoked=(b.public.key_id,), reason="stolen")
    second = next_key_set(first_set(keys), changes)
    assert (second.number, second.threshold) == (2, 2)
    after = written(tmp_path / "keys-2.json", second)
    for key in (a, b, c):
        sign_key_set(after, key)
    ring = follow(host, [read_key_set(after)])
    assert [(k.name, k.revoked) for k in ring.keys] == [
        ("alice", False), ("bob", True), ("carol", False),
    ]  # fmt: skip


def test_stock_openssl_verifies_what_we_signed(tmp_path: Path, keys: list[SigningKey]) -> None:
    path = written(tmp_path / "keys-1.json", first_set(keys))
    key_id = sign_key_set(path, keys[0])
    command = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "a.pub", "-signature"]
    done = subprocess.run([*command, f"{path}.{key_id}.sig", path], check=True, capture_output=True)
    assert done.stdout == b"Verified OK\n"


def test_07_a_signature_over_another_set_is_not_imported(
    tmp_path: Path, keys: list[SigningKey]
) -> None:
    path = written(tmp_path / "keys-1.json", first_set(keys))
    (tmp_path / "sig").write_bytes(keys[0].sign(b"another set"))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TrustError, match=r"sig: not a signature of .* over keys-1\.json"):
        import_key_set_signature(path, tmp_path / "sig", tmp_path / "a.pub")
    assert sorted(tmp_path.iterdir()) == before


def test_09_a_policy_that_its_keys_could_never_meet_is_not_begun(keys: list[SigningKey]) -> None:
    before = first_set(keys)
    for changes, fact in (
        (Changes(policy=(3, ())), "threshold 3 is not between 1 and 2"),
        (Changes(removed=(keys[0].public.key_id,)), "threshold 2 is not between 1 and 1"),
        (Changes(revoked=(keys[0].public.key_id,)), "threshold 2 is not between 1 and 1"),
        (Changes(policy=(1, ("ml-dsa-87",))), "of the kind ml-dsa-87"),
    ):
        with pytest.raises(TrustError, match=fact):
            next_key_set(before, changes)


def test_10_a_revoked_key_is_neither_removed_nor_added_anew(keys: list[SigningKey]) -> None:
    key_id = keys[1].public.key_id
    revoked = next_key_set(first_set(keys), Changes(revoked=(key_id,), policy=(1, ())))
    with pytest.raises(TrustError, match=f"key {key_id} is revoked, and every later set"):
        next_key_set(revoked, Changes(removed=(key_id,)))
    with pytest.raises(TrustError, match=f"key {key_id} is revoked here"):
        next_key_set(revoked, Changes(added=(entry(keys[1], "bob again"),)))


def test_a_key_that_the_set_before_has_not_is_named(keys: list[SigningKey]) -> None:
    with pytest.raises(TrustError, match="key set 1: no key has the id abcd"):
        next_key_set(first_set(keys), Changes(revoked=("abcd",)))


def test_a_set_or_a_signature_that_is_there_is_not_overwritten(
    tmp_path: Path, keys: list[SigningKey]
) -> None:
    path = tmp_path / "keys-1.json"
    stale = tmp_path / f"keys-1.json.{keys[0].public.key_id}.sig"
    stale.write_bytes(b"of another time")
    signed = SignedKeySet(first_set(keys), {keys[0].public.key_id: b"new"})
    with pytest.raises(UsageError, match="exists already"):
        write_new_key_set(path, signed)
    assert not path.exists()
    stale.unlink()
    write_new_key_set(path, signed)
    with pytest.raises(UsageError, match=r"keys-1\.json: exists already"):
        write_new_key_set(path, signed)
    assert read_key_set(path) == signed


def test_12_more_signatures_than_people_are_refused_before_they_are_read(
    tmp_path: Path, keys: list[SigningKey]
) -> None:
    path = written(tmp_path / "keys-1.json", first_set(keys))
    for number in range(MAX_SIGNATURES + 1):
        (tmp_path / f"keys-1.json.{number:016x}.sig").mkdir()
    with pytest.raises(MalformedError, match="more than 64 signatures"):
        read_key_set(path)


def test_an_endless_set_or_signature_is_not_read(tmp_path: Path, keys: list[SigningKey]) -> None:
    path = written(tmp_path / "keys-1.json", first_set(keys))
    with (tmp_path / f"keys-1.json.{'0' * 16}.sig").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(IntegrityError, match="larger than the limit"):
        read_key_set(path)
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(IntegrityError, match="larger than the limit"):
        read_key_set(path)
