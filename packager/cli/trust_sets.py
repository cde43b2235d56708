"""``airpack trust export`` and ``import``: a team's key set, from host to host."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import file_argument, home, now, operator
from packager.cli.screen import Screen
from packager.cli.text import counted, one_line
from packager.errors import TrustError, UsageError
from packager.format.canonical import Json
from packager.format.keyset import SignedKeySet
from packager.isolated.media import check_not_beside_sums
from packager.isolated.trust_store import change_keyring, read_keyring
from packager.store.key_sets import read_key_set, write_new_key_set
from packager.trust.keyring import Keyring
from packager.trust.keys import in_groups
from packager.trust.rotation import accept_first, follow


@click.command(name="export", cls=Command)
@click.option("-o", "--output", type=file_argument, required=True, metavar="FILE")
@click.pass_obj
def export_set(screen: Screen, output: Path) -> None:
    """Write the keys and the policy of this host to FILE, for `airpack trust import`.

    Where this host follows a key set, its signatures go beside FILE. Keys that were added by hand
    are written as set 0, which nobody signed.
    """
    ring = read_keyring(home())
    if not ring.keys:
        raise TrustError("this host trusts no key yet", hint="airpack trust add FILE.pub")
    signed = ring.as_set()
    write_new_key_set(output, signed)
    for entry in signed.key_set.keys:
        here = ring.find(entry.key_id)
        if here and here.revoked and not entry.revoked:
            screen.warn(
                f"key {entry.key_id} ({here.name}) is revoked on this host, but not by the set: on "
                f"the other one, too: airpack trust revoke {entry.key_id}"
            )
    screen.result(
        {"ok": True, "file": str(output), **set_document(signed)},
        f"written: {output}{_beside(signed)}\n"
        f"On the other host: airpack trust import {output.name}\n"
        f"Read it this fingerprint, by voice:\n{in_groups(signed.key_set.fingerprint.hex)}",
    )


@click.command(name="import", cls=Command)
@click.argument("files", nargs=-1, required=True, type=file_argument, metavar="FILE...")
@click.option(
    "--fingerprint",
    metavar="HEX",
    help="What the sender read out, all 64 digits; instead of a question on the terminal.",
)
@click.option(
    "--anew", is_flag=True, help="Forget the set that is followed here, as at first contact."
)
@click.pass_obj
def import_set(
    screen: Screen, files: tuple[Path, ...], fingerprint: str | None, anew: bool
) -> None:
    """Take the key set in FILE, with the signatures that lie beside it.

    The first set needs a person who compares its fingerprint with the sender's, by voice. From
    then on a set takes effect if it is the next one and the keys of both sets have signed it, as
    many as each demands; name every set in between.
    """
    sets = [read_key_set(file) for file in files]
    place = home()
    ring = read_keyring(place)
    is_first = ring.signed_set is None or anew
    if is_first:
        new = _first_contact(screen, files, sets, ring, fingerprint)
    else:
        new = follow(ring, sets)
        _check_fingerprint(new.as_set(), fingerprint)
    if new == ring:
        screen.result(
            {"ok": True, "changed": False, **set_document(new.as_set())},
            f"nothing to do: key set {new.as_set().key_set.number} is in effect already",
        )
        return
    with place.changing():
        if read_keyring(place) != ring:
            raise TrustError(
                "the keyring was changed meanwhile", hint="run this again: airpack trust import"
            )
        change_keyring(place, new, "trust import", _details(new, is_first), now=now())
    screen.result(
        {"ok": True, "changed": True, **set_document(new.as_set())},
        f"key set {new.as_set().key_set.number} is in effect: {_summary(new)}",
    )


def _first_contact(
    screen: Screen,
    files: tuple[Path, ...],
    sets: list[SignedKeySet],
    ring: Keyring,
    fingerprint: str | None,
) -> Keyring:
    """The keyring that the set makes, once a person or the caller vouches for its fingerprint."""
    if len(sets) > 1:
        raise UsageError(
            "at first contact one set is taken, by its fingerprint",
            hint="airpack trust import FILE, with the newest set alone",
        )
    check_not_beside_sums(files[0])
    signed = sets[0]
    new = accept_first(signed, ring)
    if fingerprint is not None:
        _check_fingerprint(signed, fingerprint)
    elif not screen.yes:
        _ask(screen, files[0], signed, ring, new)
    return new


def _ask(screen: Screen, file: Path, signed: SignedKeySet, ring: Keyring, new: Keyring) -> None:
    spoken = in_groups(signed.key_set.fingerprint.hex)
    if not screen.may_ask:
        raise UsageError(
            f"{file}: its fingerprint is {' '.join(spoken.split())}; nobody can be asked here "
            "whether that is the sender's",
            hint=f"compare it by voice, then: airpack trust import {shlex.quote(str(file))} "
            "--fingerprint 'WHAT THE SENDER READ OUT'",
        )
    lines = [f"key set {signed.key_set.number}: {_summary(new)}"]
    lines += [f"  {k.key.key_id}  {k.key.algorithm}  {one_line(k.name)}" for k in new.usable]
    gone = [k for k in ring.usable if k.key not in {kept.key for kept in new.usable}]
    lines += [f"  trusted no longer: {k.key.key_id}  {one_line(k.name)}" for k in gone]
    replace(screen, quiet=False).note("\n".join([*lines, f"fingerprint:\n{spoken}"]))
    screen.confirm("Is this what the sender read out?")


def _check_fingerprint(signed: SignedKeySet, fingerprint: str | None) -> None:
    if fingerprint is None:
        return
    digits = "".join(fingerprint.replace(":", " ").split()).lower()
    if digits != signed.key_set.fingerprint.hex:
        raise TrustError(
            f"key set {signed.key_set.number}: its fingerprint is {signed.key_set.fingerprint}, "
            f"not {digits[:64]!a}",
            hint="compare both again, by voice; if they differ, this is not the sender's set",
        )


def set_document(signed: SignedKeySet) -> dict[str, object]:
    """What scripts get of a key set."""
    key_set = signed.key_set
    return {
        "number": key_set.number,
        "fingerprint": key_set.fingerprint.hex,
        "threshold": key_set.threshold,
        "require_algorithms": list(key_set.require_algorithms),
        "keys": [entry.key_id for entry in key_set.keys if not entry.revoked],
        "revoked": [entry.key_id for entry in key_set.keys if entry.revoked],
        "signatures": list(signed.signatures),
    }


def _summary(ring: Keyring) -> str:
    kinds = "".join(f", one of {name}" for name in ring.require_algorithms)
    return f"{ring.threshold} of {counted(len(ring.usable), 'key')} must sign{kinds}"


def _beside(signed: SignedKeySet) -> str:
    count = len(signed.signatures)
    return f", and {counted(count, 'signature')} beside it: carry them together" if count else ""


def _details(ring: Keyring, is_first: bool) -> dict[str, Json]:
    key_set = ring.as_set().key_set
    return {
        "subject": str(key_set.number),
        "fingerprint": key_set.fingerprint.hex,
        "keys": [trusted.key.key_id for trusted in ring.usable],
        "first_contact": is_first,
        "operator": operator(),
    }
