"""What the commands take from the world around them: the clock, the operator, the home."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import click

from packager.cli.screen import Screen
from packager.errors import HostError
from packager.isolated.media import Media, read_run_key
from packager.isolated.trust_store import read_keyring, reckoned_now
from packager.store.home import Home, default_home
from packager.trust.clock import NEWEST_NAME
from packager.trust.keyring import Keyring
from packager.trust.verify import CLOCK_TOLERANCE

_MAX_NAME = 200  # characters

directory_argument = click.Path(path_type=Path)
file_argument = click.Path(path_type=Path, dir_okay=False)


class BundlePlace(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 alone
    """A directory, or the address of one behind an HTTP server, which stays text."""

    name = "bundle"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """The path, or the address."""
        if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
            return value
        path: Path = directory_argument.convert(value, param, ctx)  # type: ignore[arg-type]
        return path


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


def reckoned() -> datetime:
    """The time to judge dates by: this host's clock, but never before what it saw signed."""
    return reckoned_now(home(), now())


def warn_of_clock(screen: Screen) -> None:
    """Say so where this host's clock cannot be right."""
    clock, time = now(), reckoned()
    if time - clock > CLOCK_TOLERANCE:
        screen.warn(
            f"this host's clock says {clock:%Y-%m-%d}; a bundle that it installed was built on "
            f"{time:%Y-%m-%d}, so dates are judged as on that day: set the clock; or, where that "
            f"bundle is wrong, remove {home().trust / NEWEST_NAME}"
        )


def operator() -> str:
    """The account that runs this, and the one behind sudo if there is one."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")[:_MAX_NAME].encode("utf-8", "backslashreplace")
    return f"{name} (sudo by {behind.decode('utf-8')})" if behind else name


def home() -> Home:
    """The isolated host's root, there or still to be made.

    Raises ``HostError`` if it is a file, or where this account may not look.
    """
    root = default_home()
    try:
        is_other = root.exists() and not root.is_dir()
    except PermissionError:
        raise HostError(
            f"{root}: this account may not look there",
            hint="run this as the account that it belongs to, or export AIRPACK_HOME=DIRECTORY",
        ) from None
    if is_other:
        raise HostError(f"{root}: not a directory", hint="export AIRPACK_HOME=DIRECTORY")
    return Home(root)


def keyring_for(media: Media, keys: Iterable[Path]) -> Keyring:
    """The keys this host trusts, and those named for this run."""
    return read_keyring(home()).with_run_keys(read_run_key(path, media) for path in keys)
