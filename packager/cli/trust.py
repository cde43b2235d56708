"""``airpack trust``: whose word this host takes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from packager.cli.command import Group
from packager.cli.hosts import file_argument, home, now, operator, reckoned
from packager.cli.key_options import (
    not_after_option,
    not_before_option,
    require_algorithm_option,
)
from packager.cli.screen import Screen
from packager.cli.text import counted, table
from packager.cli.trust_sets import export_set, import_set
from packager.errors import TrustError
from packager.format.canonical import Json
from packager.format.timestamps import format_timestamp
from packager.isolated.media import check_not_beside_sums
from packager.isolated.trust_store import change_keyring, read_keyring
from packager.store.atomic import read_capped
from packager.store.home import Home
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.keys import MAX_KEY_FILE_SIZE, parse_public_key


@click.group(cls=Group)
def trust() -> None:
    """Say whose signatures this host accepts, and how many it needs."""


trust.add_command(export_set)
trust.add_command(import_set)


@trust.command()
@click.argument("file", type=file_argument, metavar="FILE.pub")
@click.option("--name", help="Whose key it is; the file's name if not given.")
@not_before_option
@not_after_option
@click.pass_obj
def add(
    screen: Screen,
    file: Path,
    name: str | None,
    not_before: datetime | None,
    not_after: datetime | None,
) -> None:
    """Trust the public key in FILE.pub.

    Compare the fingerprint that this prints with the sender's, by voice, before you install
    anything.
    """
    check_not_beside_sums(file)
    key = parse_public_key(read_capped(file, MAX_KEY_FILE_SIZE), str(file))
    trusted = TrustedKey(name or file.name.removesuffix(".pub"), key, not_before, not_after)
    place = home()
    with place.changing():
        ring = read_keyring(place).with_key(trusted)
        details: dict[str, Json] = {"name": trusted.name, "fingerprint": key.fingerprint}
        _change(place, ring, "trust add", key.key_id, details | _validity(trusted))
    screen.result(
        {"ok": True, **_key_document(trusted, reckoned())},
        f"trusted: {trusted.name}, key {key.key_id} ({key.algorithm})\n"
        f"Compare this fingerprint with the sender's, by voice:\n{key.spoken_fingerprint}\n"
        f"If it differs: airpack trust remove {key.key_id}",
    )


@trust.command(name="list")
@click.pass_obj
def list_keys(screen: Screen) -> None:
    """List the trusted keys, and which signatures a bundle needs."""
    ring, time = read_keyring(home()), reckoned()
    rows = [("KEY ID", "ALGORITHM", "VALID", "STATE", "NAME")]
    rows += [
        (k.key.key_id, k.key.algorithm, _period(k), _state(k, time), k.name) for k in ring.keys
    ]
    signed = ring.signed_set.key_set if ring.signed_set else None
    lines = [table(rows), f"signatures that a bundle needs, by different keys: {_policy(ring)}"]
    if signed:
        lines.append(f"key set {signed.number}: only the next set changes the keys and the policy")
    screen.result(
        {
            "threshold": ring.threshold,
            "require_algorithms": list(ring.require_algorithms),
            "set": signed and {"number": signed.number, "fingerprint": signed.fingerprint.hex},
            "keys": [_key_document(trusted, time) for trusted in ring.keys],
        },
        "\n".join(lines) if ring.keys else "no keys yet: airpack trust add FILE.pub",
    )


@trust.command()
@click.argument("key_id", metavar="KEYID")
@click.pass_obj
def remove(screen: Screen, key_id: str) -> None:
    """Trust the key KEYID no longer; it may be added again (see revoke)."""
    place = home()
    with place.changing():
        _change(place, read_keyring(place).without_key(key_id), "trust remove", key_id)
    screen.result({"ok": True, "key": key_id}, f"removed: {key_id}")


@trust.command()
@click.argument("key_id", metavar="KEYID")
@click.option("--reason", help="Why, for whoever reads the list and the log.")
@click.pass_obj
def revoke(screen: Screen, key_id: str, reason: str | None) -> None:
    """Never trust the key KEYID again: it stays listed, so that nobody adds it anew."""
    place = home()
    with place.changing():
        ring = read_keyring(place).with_revoked(key_id, reason)
        _change(place, ring, "trust revoke", key_id, {"reason": reason})
    _warn_of_reach(screen, ring)
    screen.result({"ok": True, "key": key_id, "reason": reason}, f"revoked: {key_id}")


@trust.command()
@click.option("--threshold", type=int, required=True, help="Signatures by distinct trusted keys.")
@require_algorithm_option
@click.pass_obj
def policy(screen: Screen, threshold: int, algorithms: tuple[str, ...]) -> None:
    """Say how many trusted keys, and of which kinds, must have signed a bundle.

    This replaces the whole policy: a kind that is not named is required no longer.
    """
    place = home()
    with place.changing():
        ring = read_keyring(place).with_policy(threshold, algorithms)
        kinds: list[Json] = [*ring.require_algorithms]
        _change(place, ring, "trust policy", str(threshold), {"require_algorithms": kinds})
    screen.result(
        {"ok": True, "threshold": threshold, "require_algorithms": list(ring.require_algorithms)},
        f"{counted(threshold, 'signature')} needed from now{_kinds(ring)}",
    )


def _warn_of_reach(screen: Screen, ring: Keyring) -> None:
    """Say so where no bundle can be signed any more as this host demands."""
    try:
        ring.require_within_reach()
    except TrustError as error:
        screen.warn(f"nothing can be installed now: {error.message}; {error.hint}")


def _change(
    place: Home, ring: Keyring, what: str, subject: str, more: dict[str, Json] | None = None
) -> None:
    details: dict[str, Json] = {"subject": subject, "operator": operator(), **(more or {})}
    change_keyring(place, ring, what, details, now=now())


def _policy(ring: Keyring) -> str:
    return f"{ring.threshold}{_kinds(ring)}"


def _kinds(ring: Keyring) -> str:
    names = " and ".join(f"one of {name}" for name in ring.require_algorithms)
    return f", among them {names}" if names else ""


def _period(trusted: TrustedKey) -> str:
    before, after = trusted.not_before, trusted.not_after
    if before is None and after is None:
        return "always"
    first = f"from {before:%Y-%m-%d}" if before else ""
    last = f"until {after:%Y-%m-%d}" if after else ""
    return f"{first} {last}".strip()


def _state(trusted: TrustedKey, time: datetime) -> str:
    if trusted.revoked:
        return f"revoked: {trusted.reason}" if trusted.reason else "revoked"
    if trusted.fault(time) is None:
        return "valid"
    return "not yet" if trusted.not_before and time < trusted.not_before else "expired"


def _validity(trusted: TrustedKey) -> dict[str, Json]:
    before, after = trusted.not_before, trusted.not_after
    return {
        "not_before": format_timestamp(before) if before else None,
        "not_after": format_timestamp(after) if after else None,
    }


def _key_document(trusted: TrustedKey, time: datetime) -> dict[str, object]:
    return {
        "key_id": trusted.key.key_id,
        "name": trusted.name,
        "algorithm": trusted.key.algorithm,
        "fingerprint": trusted.key.fingerprint,
        **_validity(trusted),
        "revoked": trusted.revoked,
        "reason": trusted.reason,
        "valid_now": trusted.fault(time) is None,
    }
