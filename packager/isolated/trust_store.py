"""The trust store on disk: the keyring and the sequence marks, below ``$AIRPACK_HOME/trust``."""

from __future__ import annotations

from packager.store.atomic import make_directory, read_capped, write_file
from packager.store.home import Home
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
    """The keys this host trusts; an empty keyring where none was ever added."""
    path = home.trust / KEYRING_NAME
    if not path.exists():
        return Keyring()
    return parse_keyring(read_capped(path, MAX_KEYRING_SIZE), str(path))


def write_keyring(home: Home, ring: Keyring) -> None:
    """Replace the keyring, at once or not at all."""
    make_directory(home.trust)
    write_file(home.trust / KEYRING_NAME, encode_keyring(ring))


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
