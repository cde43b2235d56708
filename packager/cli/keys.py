"""``airpack keys`` and ``airpack sign``: the sender's keys."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command, Group
from packager.cli.hosts import directory_argument, file_argument
from packager.cli.key_sets import key_set
from packager.cli.passphrases import passphrase_option, unlock
from packager.cli.screen import Screen
from packager.connected.signing.keys import generate_key, public_path_of, read_passphrase
from packager.connected.signing.sign import import_signature, sign_bundle
from packager.errors import UsageError
from packager.store.atomic import read_capped
from packager.trust.keys import ALGORITHMS, MAX_KEY_FILE_SIZE, P256, PublicKey, parse_public_key


@click.group(cls=Group)
def keys() -> None:
    """Make and show signing keys, and the sets of them that hosts follow."""


keys.add_command(key_set)


@keys.command()
@click.argument("out", type=file_argument)
@click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    default=P256,
    show_default=True,
    help="Stock openssl verifies p256; ml-dsa-87 withstands quantum computers.",
)
@passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted.")
@click.pass_obj
def generate(
    screen: Screen, out: Path, algorithm: str, passphrase_file: Path | None, no_passphrase: bool
) -> None:
    """Make a key pair.

    OUT stays on this host; OUT.pub is for every host that should trust you.
    """
    if passphrase_file and no_passphrase:
        raise UsageError("a passphrase and --no-passphrase exclude each other")
    passphrase = None
    if passphrase_file:
        passphrase = read_passphrase(passphrase_file)
    elif not no_passphrase:
        passphrase = screen.ask_secret(
            "Passphrase for the new key",
            confirm=True,
            hint="--passphrase-file F, or --no-passphrase",
        )
    public = generate_key(out, algorithm, passphrase)
    screen.result(
        {**_document(public), "private": str(out), "public": str(public_path_of(out))},
        f"{public.key_id}\n"
        f"private key  {out}: it stays on this host\n"
        f"public key   {public_path_of(out)}: every host that should trust you needs it; send it\n"
        f"             another way than the bundle, and read out its fingerprint by voice:\n"
        f"{public.spoken_fingerprint}",
    )


@keys.command()
@click.argument("file", type=file_argument, metavar="FILE.pub")
@click.pass_obj
def show(screen: Screen, file: Path) -> None:
    """Show the id and the fingerprint of a public key."""
    public = parse_public_key(read_capped(file, MAX_KEY_FILE_SIZE), str(file))
    screen.result(
        _document(public),
        f"{public.key_id}  {public.algorithm}\n{public.spoken_fingerprint}",
    )


@click.command(cls=Command)
@click.argument("bundle", type=directory_argument)
@click.option("--key", type=file_argument, help="Sign with this private key.")
@passphrase_option
@click.option(
    "--import", "signature", type=file_argument, metavar="SIG", help="Add one made elsewhere."
)
@click.option("--pub", type=file_argument, metavar="FILE.pub", help="Whose it is, with --import.")
@click.pass_obj
def sign(
    screen: Screen,
    bundle: Path,
    key: Path | None,
    passphrase_file: Path | None,
    signature: Path | None,
    pub: Path | None,
) -> None:
    """Add a signature to BUNDLE; the payload stays as it is."""
    if key and not signature:
        key_id = sign_bundle(bundle, unlock(screen, key, passphrase_file))
    elif signature and pub and not key:
        key_id = import_signature(bundle, signature, pub)
    else:
        raise UsageError("give either --key FILE, or --import SIG with --pub FILE.pub")
    screen.result({"ok": True, "key_id": key_id}, f"signed by {key_id}")


def _document(public: PublicKey) -> dict[str, object]:
    return {
        "ok": True,
        "key_id": public.key_id,
        "algorithm": public.algorithm,
        "fingerprint": public.fingerprint,
    }
