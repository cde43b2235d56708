"""What the commands take from the world around them: the clock, the operator, the home."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import click

from packager.errors import HostError
from packager.isolated.media import Media, read_run_key
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home, default_home
from packager.trust.keyring import Keyring

_MAX_NAME = 200  # characters

directory_argument = click.Path(path_type=Path)
file_argument = click.Path(path_type=Path, dir_okay=False)

pub_option = click.option(
    "--pub",
    "keys",
    type=file_argument,
    multiple=True,
    metavar="FILE.pub",
    help="A public key to trust for this one run; never one from the medium itself.",
)


def now() -> datetime:
    """This host's clock, in UTC."""
    return datetime.now(timezone.utc)


def operator() -> str:
    """The account that runs this, and the one behind sudo if there is one."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")[:_MAX_NAME].encode("utf-8", "backslashreplace")
    return f"{name} (sudo by {behind.decode('utf-8')})" if behind else name


def home() -> Home:
    """The isolated host's root, there or still to be made; raises ``HostError`` if it is a file."""
    root = default_home()
    if root.exists() and not root.is_dir():
        raise HostError(f"{root}: not a directory", hint="export AIRPACK_HOME=DIRECTORY")
    return Home(root)


def keyring_for(media: Media, keys: Iterable[Path]) -> Keyring:
    """The keys this host trusts, and those named for this run."""
    return read_keyring(home()).with_run_keys(read_run_key(path, media) for path in keys)
