"""``airpack keys set``: the team's own list of whose signatures count, for hosts far away."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from packager.cli.command import Group
from packager.cli.hosts import file_argument
from packager.cli.key_options import (
    not_after_option,
    not_before_option,
    require_algorithm_option,
)
from packager.cli.passphrases import passphrase_option, unlock
from packager.cli.screen import Screen
from packager.cli.text import table
from packager.cli.trust_sets import set_document
from packager.connected.signing.key_sets import (
    Changes,
    import_key_set_signature,
    next_key_set,
    sign_key_set,
)
from packager.errors import TrustError, UsageError
from packager.format.keyset import KeyEntry, KeySet, SignedKeySet
from packager.format.timestamps import format_timestamp
from packager.store.atomic import read_capped
from packager.store.key_sets import read_key_set, write_new_key_set
from packager.trust.keyring import Keyring
from packager.trust.keys import MAX_KEY_FILE_SIZE, in_groups, parse_public_key
from packager.trust.rotation import accept_first, follow

_after_option = click.option(
    "--after", type=file_argument, metavar="SET", help="The set that hosts follow until then."
)


@click.group(name="set", cls=Group)
def key_set() -> None:
    """Begin, sign and show the numbered sets of keys that hosts follow."""


@key_set.command()
@click.argument("output", type=file_argument, metavar="OUT")
@_after_option
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="[NAME=]FILE.pub",
    help="A public key, and whose it is; the file's name if not given.",
)
@click.option("--remove", "removed", multiple=True, metavar="KEYID", help="Leave this key out.")
@click.option(
    "--revoke",
    "revoked",
    multiple=True,
    metavar="KEYID",
    help="Name this key as revoked, in this set and all that follow.",
)
@click.option("--reason", help="Why it is revoked.")
@click.option("--threshold", type=int, metavar="N", help="Signatures that are needed from now on.")
@require_algorithm_option
@not_before_option
@not_after_option
@click.pass_obj
def new(
    screen: Screen,
    output: Path,
    after: Path | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    revoked: tuple[str, ...],
    reason: str | None,
    threshold: int | None,
    algorithms: tuple[str, ...],
    not_before: datetime | None,
    not_after: datetime | None,
) -> None:
    """Write the next key set to OUT, still unsigned.

    It has the keys and the policy of SET but for what is said here; --threshold and
    --require-algorithm together state the whole policy. Dates are those of the keys added.
    """
    if algorithms and threshold is None:
        raise UsageError("--require-algorithm is part of a policy", hint="add --threshold N")
    entries = tuple(_entry(text, not_before, not_after) for text in added)
    policy = None if threshold is None else (threshold, algorithms)
    before = read_key_set(after).key_set if after else None
    made = next_key_set(before, Changes(entries, removed, revoked, reason, policy))
    signed = SignedKeySet(made, {})
    write_new_key_set(output, signed)
    signers = "keys of the old set and of the new one" if after else "the keys in it"
    screen.result(
        {"ok": True, "file": str(output), **set_document(signed)},
        f"{_described(made)}\n"
        f"unsigned: {signers} sign it, as many as each policy demands:\n"
        f"airpack keys set sign {output} --key FILE",
    )


@key_set.command()
@click.argument("file", type=file_argument, metavar="SET")
@click.option("--key", type=file_argument, help="Sign with this private key.")
@passphrase_option
@click.option(
    "--import", "signature", type=file_argument, metavar="SIG", help="Add one made elsewhere."
)
@click.option("--pub", type=file_argument, metavar="FILE.pub", help="Whose it is, with --import.")
@click.pass_obj
def sign(
    screen: Screen,
    file: Path,
    key: Path | None,
    passphrase_file: Path | None,
    signature: Path | None,
    pub: Path | None,
) -> None:
    """Add a signature to SET, as a file of its own beside it.

    Compare its fingerprint with whoever began it, first.
    """
    if key and not signature:
        key_id = sign_key_set(file, unlock(screen, key, passphrase_file))
    elif signature and pub and not key:
        key_id = import_key_set_signature(file, signature, pub)
    else:
        raise UsageError("give either --key FILE, or --import SIG with --pub FILE.pub")
    screen.result({"ok": True, "key_id": key_id}, f"signed by {key_id}: {file}.{key_id}.sig")


@key_set.command()
@click.argument("file", type=file_argument, metavar="SET")
@_after_option
@click.pass_obj
def show(screen: Screen, file: Path, after: Path | None) -> None:
    """Show SET, its fingerprint, and which signatures it lacks; with --after, for hosts there."""
    signed = read_key_set(file)
    lacking = _lacking(signed, read_key_set(after) if after else None)
    screen.result(
        {"ok": True, **set_document(signed), "complete": lacking is None, "lacking": lacking},
        f"{_described(signed.key_set)}\n"
        + (f"not complete: {lacking}" if lacking else "complete: airpack trust import takes it"),
    )


def _lacking(signed: SignedKeySet, before: SignedKeySet | None) -> str | None:
    """Why no host will take the set, or ``None`` if hosts will."""
    try:
        if before is None:
            accept_first(signed, Keyring())
        else:
            follow(Keyring().with_set(before), [signed])
    except TrustError as error:
        return error.message
    return None


def _entry(text: str, not_before: datetime | None, not_after: datetime | None) -> KeyEntry:
    name, _, path = text.rpartition("=")
    file = Path(path)
    key = parse_public_key(read_capped(file, MAX_KEY_FILE_SIZE), path)
    return KeyEntry(
        name=name or file.name.removesuffix(".pub"),
        spki=key.spki,
        not_before=format_timestamp(not_before) if not_before else None,
        not_after=format_timestamp(not_after) if not_after else None,
    )


def _described(key_set: KeySet) -> str:
    rows = [(e.key_id, "revoked" if e.revoked else "", e.name) for e in key_set.keys]
    kinds = "".join(f", one of {name}" for name in key_set.require_algorithms)
    return (
        f"key set {key_set.number}: {key_set.threshold} must sign{kinds}\n{table(rows)}\n"
        f"fingerprint, to be read out:\n{in_groups(key_set.fingerprint.hex)}"
    )
