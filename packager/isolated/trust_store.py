"""The trust store on disk: the keyring, the sequence marks and the newest bundle's time.

All of it lies below ``$AIRPACK_HOME/trust``; each file is replaced at once or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from packager.errors import AirpackError
from packager.format.canonical import Json
from packager.store.atomic import make_directory, naming_refusals, read_capped, write_file
from packager.store.home import Home
from packager.store.journal import append_event
from packager.trust.clock import (
    MAX_NEWEST_SIZE,
    NEWEST_NAME,
    Newest,
    encode_newest,
    parse_newest,
    reckon,
)
from packager.trust.keyring import (
    KEYRING_NAME,
    MAX_KEYRING_SIZE,
    Keyring,
    encode_keyring,
    parse_keyring,
)
from packager.trust.sequence import (
    MAX_SEQUENCES_SIZE,
    SEQUENCES_NAME,
    Sequences,
    encode_sequences,
    parse_sequences,
)


def read_keyring(home: Home) -> Keyring:
    """The keys this host trusts; an empty keyring where none was ever added.

    Raises ``HostError`` where others could have written them, ``TrustError`` for a damaged one.
    """
    home.check_owned()
    path = home.trust / KEYRING_NAME
    if not path.exists():
        return Keyring()
    return parse_keyring(read_capped(path, MAX_KEYRING_SIZE), str(path))


def write_keyring(home: Home, ring: Keyring) -> None:
    """Replace the keyring, at once or not at all."""
    make_directory(home.trust)
    write_file(home.trust / KEYRING_NAME, encode_keyring(ring))


def change_keyring(
    home: Home, ring: Keyring, what: str, details: Mapping[str, Json], *, now: datetime
) -> None:
    """Log the change that makes the keyring ``ring``, then make it.

    In this order, so that a change which cannot be logged does not take effect. Raises
    ``HostError``, ``NoSpaceError`` or ``IntegrityError``; then the keyring is as it was.
    """
    before = read_keyring(home)
    append_event(home.log, what, details, now=now)
    try:
        write_keyring(home, ring)
    except BaseException:
        with suppress(AirpackError):  # the first error is what counts
            if read_keyring(home) != before:
                write_keyring(home, before)
        raise


def read_sequences(home: Home) -> Sequences:
    """The highest sequence this host has installed of each bundle name."""
    path = home.trust / SEQUENCES_NAME
    if not path.exists():
        return Sequences()
    return parse_sequences(read_capped(path, MAX_SEQUENCES_SIZE), str(path))


def write_sequences(home: Home, sequences: Sequences) -> None:
    """Replace the marks, at once or not at all."""
    make_directory(home.trust)
    write_file(home.trust / SEQUENCES_NAME, encode_sequences(sequences))


def read_newest(home: Home) -> Newest | None:
    """The newest moment that a bundle installed here was built at, or ``None``."""
    path = home.trust / NEWEST_NAME
    if not path.exists():
        return None
    return parse_newest(read_capped(path, MAX_NEWEST_SIZE), str(path))


def write_newest(home: Home, newest: Newest | None) -> None:
    """Replace what :func:`read_newest` reads."""
    path = home.trust / NEWEST_NAME
    if newest is None:
        with naming_refusals(path):
            path.unlink(missing_ok=True)
    else:
        make_directory(home.trust)
        write_file(path, encode_newest(newest))


def reckoned_now(home: Home, clock: datetime) -> datetime:
    """The time to judge dates by: what ``clock`` says, but never before what was seen signed."""
    return reckon(clock, read_newest(home))
