"""``airpack trust``: whose word this host takes."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Group
from packager.cli.hosts import file_argument, home, now, operator
from packager.cli.screen import Screen
from packager.cli.text import counted, table
from packager.isolated.media import check_not_beside_sums
from packager.isolated.trust_store import read_keyring, write_keyring
from packager.store.atomic import read_capped
from packager.store.home import Home
from packager.store.journal import append_event
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.keys import MAX_KEY_FILE_SIZE, parse_public_key


@click.group(cls=Group)
def trust() -> None:
    """Add, list and remove the public keys this host trusts."""


@trust.command()
@click.argument("file", type=file_argument, metavar="FILE.pub")
@click.option("--name", help="Whose key it is; the file's name if not given.")
@click.pass_obj
def add(screen: Screen, file: Path, name: str | None) -> None:
    """Trust the public key in FILE.pub.

    Compare the fingerprint that this prints with the sender's, by voice, before you install
    anything.
    """
    check_not_beside_sums(file)
    key = parse_public_key(read_capped(file, MAX_KEY_FILE_SIZE), str(file))
    trusted = TrustedKey(name or file.name.removesuffix(".pub"), key)
    place = home()
    with place.changing():
        _change(place, read_keyring(place).with_key(trusted), "trust add", key.key_id)
    document = {"ok": True, **_key_document(trusted)}
    screen.result(
        document,
        f"trusted: {trusted.name}, key {key.key_id} ({key.algorithm})\n"
        f"Compare this fingerprint with the sender's, by voice:\n{key.spoken_fingerprint}\n"
        f"If it differs: airpack trust remove {key.key_id}",
    )


@trust.command(name="list")
@click.pass_obj
def list_keys(screen: Screen) -> None:
    """List the trusted keys and how many signatures a bundle needs."""
    ring = read_keyring(home())
    rows = [("KEY ID", "ALGORITHM", "NAME")]
    rows += [(k.key.key_id, k.key.algorithm, k.name) for k in ring.keys]
    summary = f"signatures that a bundle needs, by different keys: {ring.threshold}"
    screen.result(
        {"threshold": ring.threshold, "keys": [_key_document(k) for k in ring.keys]},
        f"{table(rows)}\n{summary}" if ring.keys else "no keys yet: airpack trust add FILE.pub",
    )


@trust.command()
@click.argument("key_id", metavar="KEYID")
@click.pass_obj
def remove(screen: Screen, key_id: str) -> None:
    """Trust the key KEYID no longer."""
    place = home()
    with place.changing():
        _change(place, read_keyring(place).without_key(key_id), "trust remove", key_id)
    screen.result({"ok": True, "key": key_id}, f"removed: {key_id}")


@trust.command()
@click.option("--threshold", type=int, required=True, help="Signatures by distinct trusted keys.")
@click.pass_obj
def policy(screen: Screen, threshold: int) -> None:
    """Say how many trusted keys must have signed a bundle."""
    place = home()
    with place.changing():
        ring = read_keyring(place).with_threshold(threshold)
        _change(place, ring, "trust policy", str(threshold))
    screen.result(
        {"ok": True, "threshold": threshold}, f"{counted(threshold, 'signature')} needed from now"
    )


def _change(place: Home, ring: Keyring, what: str, subject: str) -> None:
    # The line first: a change that cannot be logged must not take effect.
    append_event(place.log, what, {"subject": subject, "operator": operator()}, now=now())
    write_keyring(place, ring)


def _key_document(trusted: TrustedKey) -> dict[str, object]:
    return {
        "key_id": trusted.key.key_id,
        "name": trusted.name,
        "algorithm": trusted.key.algorithm,
        "fingerprint": trusted.key.fingerprint,
    }
