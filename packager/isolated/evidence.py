"""What a generation keeps of the bundle it came from: the signed index, sums and signatures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from packager.errors import AirpackError
from packager.format.bundle import INDEX_NAME
from packager.format.digest import Digest
from packager.format.receipt import (
    MAX_RECEIPT_SIZE,
    RECEIPT_NAME,
    parse_receipt,
)
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, signature_name
from packager.store.atomic import read_capped, write_file
from packager.trust.verify import VerifiedBundle


def write_evidence(verified: VerifiedBundle, directory: Path) -> None:
    """Write what was verified into the generation at ``directory``."""
    evidence = verified.evidence
    write_file(directory / INDEX_NAME, evidence.index)
    write_file(directory / SUMS_NAME, evidence.sums)
    for signer in verified.signers:
        write_file(directory / signature_name(signer.key_id), evidence.signatures[signer.key_id])


def read_origin(directory: Path) -> Digest | None:
    """The digest of the bundle that the generation at ``directory`` says it came from, if it can.

    Its receipt says so, and the signed sums are what has that digest.
    """
    with suppress(AirpackError):
        return parse_receipt(read_capped(directory / RECEIPT_NAME, MAX_RECEIPT_SIZE)).bundle
    with suppress(AirpackError):
        return Digest.of(read_capped(directory / SUMS_NAME, MAX_SUMS_SIZE))
    return None
