"""What a generation keeps of the bundle it came from: the signed index, sums and signatures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from packager.errors import AirpackError, HostError, IntegrityError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE
from packager.format.digest import Digest
from packager.format.receipt import (
    MAX_RECEIPT_SIZE,
    RECEIPT_NAME,
    parse_receipt,
)
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, parse_sums, signature_name
from packager.store.atomic import read_capped, write_file
from packager.store.generations import Generation, read_generation
from packager.store.home import Home
from packager.trust.verify import VerifiedBundle


def write_evidence(verified: VerifiedBundle, directory: Path) -> None:
    """Write what was verified into the generation at ``directory``."""
    evidence = verified.evidence
    write_file(directory / INDEX_NAME, evidence.index)
    write_file(directory / SUMS_NAME, evidence.sums)
    for signer in verified.signers:
        write_file(directory / signature_name(signer.key_id), evidence.signatures[signer.key_id])


def read_signed_generation(home: Home, name: str, number: int) -> Generation:
    """Read generation ``number``; its index is the one that was signed, by the word of its receipt.

    Raises ``IntegrityError`` where it is not, or cannot be read.
    """
    generation = read_generation(home, name, number)
    try:
        sums = read_capped(generation.path / SUMS_NAME, MAX_SUMS_SIZE)
        index = read_capped(generation.path / INDEX_NAME, MAX_INDEX_SIZE)
        is_signed = Digest.of(sums) == generation.receipt.bundle
        is_listed = parse_sums(sums).get(INDEX_NAME) == Digest.of(index)
    except (IntegrityError, HostError):
        is_signed = is_listed = False
    if not (is_signed and is_listed):
        wrong = INDEX_NAME if is_signed else SUMS_NAME
        raise IntegrityError(
            f"{generation.path}: its evidence is damaged: {wrong} is not the one that was signed"
        )
    return generation


def read_origin(directory: Path) -> Digest | None:
    """The digest of the bundle that the generation at ``directory`` says it came from, if it can.

    Its receipt says so, and the signed sums are what has that digest.
    """
    with suppress(AirpackError):
        return parse_receipt(read_capped(directory / RECEIPT_NAME, MAX_RECEIPT_SIZE)).bundle
    with suppress(AirpackError):
        return Digest.of(read_capped(directory / SUMS_NAME, MAX_SUMS_SIZE))
    return None
