"""What is asked of an install, what is decided before it begins, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.format.receipt import Receipt
from packager.format.variant import Variant
from packager.isolated.doctor import Finding
from packager.isolated.host_key import HostKey
from packager.isolated.media import Media
from packager.runtime.smoke import SmokeResult
from packager.store.home import Home
from packager.trust.keyring import Keyring
from packager.trust.verify import VerifiedBundle


@dataclass(frozen=True)
class InstallRequest:
    """What a person asked for, and the moment they asked. ``patches`` are their directories."""

    media: Media
    home: Home
    keyring: Keyring
    variant: str | None
    smoke: bool
    allow_downgrade: bool
    operator: str
    now: datetime
    patches: tuple[Path, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class Decided:
    """What was found out before anything was written.

    ``misfits`` are what a person insisted on installing in spite of; ``host_key`` signs the
    receipt, where the host has one.
    """

    verified: VerifiedBundle
    variants: tuple[Variant, ...]
    misfits: tuple[Finding, ...]
    host_key: HostKey | None


@dataclass(frozen=True)
class Installation:
    """What came of it."""

    receipt: Receipt
    path: Path
    smoke: tuple[SmokeResult, ...]
