"""The chain-of-custody sheet of a bundle on its media, or of one that was installed here."""

from __future__ import annotations

from packager.format.bundle import Bundle
from packager.format.custody import (
    Carried,
    CarriedMedium,
    Received,
    custody_sheet,
)
from packager.format.digest import Digest
from packager.format.receipt import RECEIPT_NAME, SmokeRecord
from packager.isolated.media import Media, label_of
from packager.store.device import identify_device
from packager.store.digests import file_digest
from packager.store.generations import Generation


def sheet_of_media(bundle: Bundle, digest: Digest, signers: tuple[str, ...], media: Media) -> str:
    """The sheet to travel with ``media``, where the far end is still to be filled in.

    ``digest`` is that of the signed sums; whether the signatures hold is not judged here.
    """
    carried = Carried.of(bundle, digest, signers)
    mediums = []
    for number, directory in enumerate(media.directories, start=1):
        device = identify_device(directory)
        mediums.append(
            CarriedMedium(number, device.label, device.serial, device.model, label_of(directory))
        )
    return custody_sheet(carried, mediums, None)


def sheet_of_generation(generation: Generation) -> str:
    """The sheet of what was received and installed as ``generation``."""
    receipt = generation.receipt
    mediums = [
        CarriedMedium(number, medium.label, medium.serial, medium.model, medium.path)
        for number, medium in enumerate(receipt.media, start=1)
    ]
    received = Received(
        when=receipt.installed,
        operator=receipt.operator,
        generation=generation.number,
        checks=("signatures and every chunk that was installed: ok", *map(_smoke, receipt.smoke)),
        receipt=file_digest(generation.path / RECEIPT_NAME).hex,
    )
    carried = Carried.of(generation.bundle, receipt.bundle, receipt.signers)
    return custody_sheet(carried, mediums, received)


def _smoke(record: SmokeRecord) -> str:
    answer = "the build's tokens" if record.tokens_match else "other tokens, within tolerance"
    return f"smoke test of {record.variant}: {'ok' if record.ok else 'FAILED'}, {answer}"
