"""Where everything of the isolated host lies: one directory, ``$AIRPACK_HOME``.

trust/keyring.json      the keys this host trusts
trust/sequences.json    the highest sequence seen of each bundle name
blobs/<aa>/<digest>     the store: read-only files by content
partial/<name>/<digest> what an interrupted install has of a file of the model
models/<name>/<n>/      generation n: hard links into the store, and its evidence
models/<name>/current   a symbolic link to one generation
log.jsonl               the hash-chained record
log.jsonl.head          how many lines that has, and the digest of the last
host.key                what signs this host's receipts, if somebody put it there
lock                    held by whoever changes any of it
"""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError
from packager.format.digest import Digest
from packager.store.atomic import make_directory, naming_refusals

_ELSEWHERE = "export AIRPACK_HOME=DIRECTORY, where this account may write"
_HOLDER_SIZE = 32  # bytes; always all of them, so that a shorter number leaves no old digits


@dataclass(frozen=True)
class Home:
    """The isolated host's root directory."""

    root: Path

    @property
    def trust(self) -> Path:
        """The directory of the trust store."""
        return self.root / "trust"

    @property
    def blobs(self) -> Path:
        """The directory of the content-addressed files."""
        return self.root / "blobs"

    @property
    def partials(self) -> Path:
        """The directory of the files that are not whole yet."""
        return self.root / "partial"

    @property
    def models(self) -> Path:
        """The directory of the installed models."""
        return self.root / "models"

    @property
    def log(self) -> Path:
        """The hash-chained record."""
        return self.root / "log.jsonl"

    def blob(self, digest: Digest) -> Path:
        """Where the store keeps the file with that digest."""
        return self.blobs / digest.hex[:2] / digest.hex

    def partial(self, name: str, digest: Digest) -> Path:
        """Where the file with that digest grows, for the model ``name``."""
        return self.partials / name / digest.hex

    def check_owned(self) -> None:
        """Raise ``HostError`` where others than this user and root may change what is here."""
        for path in (self.root, self.trust):
            with naming_refusals(path):
                if not path.exists():
                    continue
                status = path.stat()
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise HostError(
                    f"{path}: others may write here, and so change what this host trusts",
                    hint=f"chmod go-w {shlex.quote(str(path))}, once you know who wrote there",
                )
            if status.st_uid not in (0, os.geteuid()):
                raise HostError(
                    f"{path}: belongs to another user (uid {status.st_uid})",
                    hint="run this as that user, or export AIRPACK_HOME=DIRECTORY",
                )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the right to change this home; the kernel takes it back from a dead process.

        Raises ``HostError`` naming the process that holds it.
        """
        path = self.root / "lock"
        try:
            make_directory(self.root)
            self.check_owned()
            descriptor = _open_lock(path)
        except HostError as error:
            raise HostError(error.message, hint=error.hint or _ELSEWHERE) from error
        try:
            _take(descriptor, path)
            yield
        finally:
            os.close(descriptor)


def default_home() -> Path:
    """``$AIRPACK_HOME``, else ``/var/lib/airpack`` for root, else below ``$XDG_DATA_HOME``.

    Raises ``HostError`` for an account without a home.
    """
    if named := os.environ.get("AIRPACK_HOME"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/airpack")
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    except RuntimeError:
        raise HostError("this account has no home directory", hint=_ELSEWHERE) from None
    return Path(data) / "airpack"


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with naming_refusals(path):
        # Who cannot write here may not hold the lock either, and so not read it.
        return os.open(path, flags, 0o600)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = (
            os.pread(descriptor, _HOLDER_SIZE, 0).decode("ascii", "replace").strip() or "unknown"
        )
        raise HostError(
            f"{path}: another airpack, process {holder}, is changing this place",
            hint="wait until it has ended, then run this again",
        ) from None
    # The lock is the kernel's; the number is a courtesy, which a full disk must not take gc for.
    with suppress(OSError):
        os.pwrite(descriptor, f"{os.getpid()}\n".ljust(_HOLDER_SIZE).encode("ascii"), 0)
