"""The host's own key, which signs its receipts: ``$AIRPACK_HOME/host.key``, if there is one.

airpack has no code for private keys on this side of the gap; the host's own ``openssl`` signs. The
signature is what ``openssl dgst -sha256 -sign`` makes, and what
``openssl dgst -sha256 -verify host.pub -signature receipt.json.sig receipt.json`` checks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError, TrustError
from packager.store.home import Home
from packager.trust.keys import parse_spki

HOST_KEY_NAME = "host.key"
_SECONDS = 60
_MAX_WORDS = 300  # characters of what openssl says


@dataclass(frozen=True)
class HostKey:
    """A key that can sign: where its private half is, and the id of its public one."""

    path: Path
    key_id: str

    def sign(self, data: bytes) -> bytes:
        """The signature over ``data``; raises ``HostError``."""
        return _openssl(self.path, "dgst", "-sha256", "-sign", str(self.path), given=data)


def find_host_key(home: Home) -> HostKey | None:
    """The key of this host, if it has one.

    Raises ``TrustError`` for one that others can read or that is of no known kind, and
    ``HostError`` where openssl cannot use it.
    """
    path = home.root / HOST_KEY_NAME
    if not path.exists():
        return None
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TrustError(
            f"{path}: others can read this private key",
            hint=f"chmod 600 {shlex.quote(str(path))}; if others may have read it, make a new one",
        )
    spki = _openssl(path, "pkey", "-in", str(path), "-pubout", "-outform", "DER")
    return HostKey(path, parse_spki(spki, str(path)).key_id)


def _openssl(key: Path, *words: str, given: bytes = b"") -> bytes:
    path = _search_path()
    try:
        done = subprocess.run(
            # Without a passphrase: nobody may be there to be asked for one.
            [_find_openssl(path), *words, "-passin", "pass:"],
            input=given,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(
            f"{key}: openssl, which signs receipts, cannot be run: {error}",
            hint=f"install openssl; or move {key} away, and receipts stay unsigned",
        ) from None
    if done.returncode:
        words_of_it = " ".join(done.stderr.decode("utf-8", "replace").split())[:_MAX_WORDS]
        raise HostError(f"{key}: openssl cannot use this key: {words_of_it}")
    return done.stdout


def _find_openssl(path: str) -> str:
    found = shutil.which("openssl", path=path)
    if found is None:
        raise FileNotFoundError("it is in no directory of PATH")
    return found


def _search_path() -> str:
    """The directories of ``PATH``, less those that depend on where this runs: on a medium, say."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(place for place in places if Path(place).is_absolute())
