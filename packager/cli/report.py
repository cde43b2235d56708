"""``airpack report``: a bundle as a page for people, and the sheet that travels with its media."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import (
    directory_argument,
    file_argument,
    keyring_for,
    now,
    pub_option,
    reckoned,
)
from packager.cli.media import check_beside
from packager.cli.screen import Screen
from packager.connected.packing.footprint import footprint_of
from packager.errors import AirpackError, DigestMismatchError, UsageError
from packager.evidence.markup import GENERATOR
from packager.evidence.report import (
    REPORTED,
    UNVERIFIED,
    Reported,
    ReportedKey,
    Standing,
    make_report,
    verified,
)
from packager.format.bundle import INDEX_NAME, LOCK_NAME, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.lock import MAX_LOCK_SIZE, parse_lock
from packager.format.statement import MAX_PROVENANCE_SIZE, PROVENANCE_NAME, parse_account
from packager.format.sums import SUMS_NAME, parse_sums
from packager.format.timestamps import format_timestamp
from packager.isolated.custody import sheet_of_media
from packager.isolated.documents import read_listed
from packager.isolated.media import Media, open_media, read_evidence
from packager.isolated.verify import authenticate
from packager.store.atomic import naming_refusals, open_regular, write_file
from packager.trust.keyring import Keyring

_HEAD_SIZE = 1024  # bytes, within which a report says what made it


@dataclass(frozen=True)
class _Read:
    """What the media say, and how far that was checked."""

    bundle: Bundle
    digest: Digest
    sums: Mapping[str, Digest]
    signers: tuple[ReportedKey, ...]
    standing: Standing


@click.command(cls=Command)
@click.argument("bundles", nargs=-1, required=True, type=directory_argument, metavar="BUNDLE...")
@click.option(
    "-o", "--output", type=file_argument, metavar="FILE.html", help="Where to write the page."
)
@click.option(
    "--custody", is_flag=True, help="Print the chain-of-custody sheet of these media, as text."
)
@pub_option
@click.pass_obj
def report(
    screen: Screen,
    bundles: tuple[Path, ...],
    output: Path | None,
    custody: bool,
    keys: tuple[Path, ...],
) -> None:
    """Write what is known of BUNDLE as one page of HTML, to be read, printed and signed.

    The signatures are checked if this host trusts any key, or one is named; the page says so
    on top. The volumes are not read.
    """
    if output is None and not custody:
        raise UsageError("say where to: -o FILE.html, or --custody", hint="airpack report --help")
    media = open_media(bundles)
    ring = keyring_for(media, keys)
    if output is not None:
        _check_output(output, media)
    read = _authenticated(media, ring) if ring.keys else _unverified(screen, media)
    sheet = sheet_of_media(read.bundle, read.digest, tuple(s.key_id for s in read.signers), media)
    if output is not None:
        write_file(output, make_report(_reported(screen, media, read, sheet)))
    document: dict[str, object] = {
        "ok": True,
        "path": str(output) if output else None,
        "verified": bool(ring.keys),
        "bundle": {
            "name": read.bundle.name,
            "version": read.bundle.version,
            "sequence": read.bundle.sequence,
        },
        "signers": [signer.key_id for signer in read.signers],
        "custody": sheet if custody else None,
    }
    screen.result(document, sheet.rstrip() if custody else f"wrote: {output}")


def _check_output(output: Path, media: Media) -> None:
    """Refuse to write over anything but an earlier report, which a new one may replace."""
    check_beside(output, media)
    with naming_refusals(output):
        if not os.path.lexists(output) or _is_report(output):
            return
    raise UsageError(
        f"{output}: exists, and is no report", hint="name another file, or remove that one"
    )


def _is_report(path: Path) -> bool:
    try:
        with open_regular(path) as descriptor:
            return GENERATOR.encode() in os.read(descriptor, _HEAD_SIZE)
    except AirpackError:  # a link, a device
        return False


def _authenticated(media: Media, ring: Keyring) -> _Read:
    found = authenticate(media, ring, now=reckoned())
    signers = tuple(ReportedKey(s.key_id, s.key, s.name) for s in found.signers)
    needed = max(ring.threshold, found.bundle.signers)
    standing = verified(needed, format_timestamp(now()))
    return _Read(found.bundle, found.digest, found.sums, signers, standing)


def _unverified(screen: Screen, media: Media) -> _Read:
    evidence = read_evidence(media)[0]
    sums = parse_sums(evidence.sums)
    if sums.get(INDEX_NAME) != Digest.of(evidence.index):
        words = shlex.join(map(str, media.directories))
        raise DigestMismatchError(
            f"{INDEX_NAME}: not the file that {SUMS_NAME} lists", hint=f"airpack verify {words}"
        )
    screen.warn("NOT VERIFIED: this host trusts no key; --pub FILE.pub names one for this run")
    signers = tuple(ReportedKey(key_id) for key_id in sorted(evidence.signatures))
    bundle = parse_bundle(evidence.index)
    return _Read(bundle, Digest.of(evidence.sums), sums, signers, UNVERIFIED)


def _reported(screen: Screen, media: Media, read: _Read, sheet: str) -> Reported:
    sums = read.sums
    fits: Sequence[object] = footprint_of(read.bundle, media.directories[0]).media()
    return Reported(
        bundle=read.bundle,
        standing=read.standing,
        signers=read.signers,
        sums=read.digest,
        documents={name: sums[name] for name in REPORTED if name in sums},
        account=read_listed(
            media, sums, PROVENANCE_NAME, MAX_PROVENANCE_SIZE, parse_account, screen
        ),
        lock=read_listed(media, sums, LOCK_NAME, MAX_LOCK_SIZE, parse_lock, screen),
        media=tuple(map(str, fits)),
        custody=sheet,
    )
