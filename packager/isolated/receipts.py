"""What an install leaves in writing: the receipt in its generation, a line in the host's log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from packager import __version__
from packager.errors import AirpackError
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.receipt import (
    RECEIPT_NAME,
    RECEIPT_SIGNATURE_NAME,
    MediumRecord,
    Receipt,
    SmokeRecord,
    encode_receipt,
)
from packager.format.timestamps import format_timestamp
from packager.isolated.host_key import HostKey
from packager.isolated.media import Media
from packager.isolated.request import Decided, InstallRequest
from packager.isolated.trust_store import read_keyring
from packager.runtime.smoke import SmokeResult
from packager.store.atomic import write_file
from packager.store.device import identify_device
from packager.store.journal import append_event, log_head

_MAX_MESSAGE = 2000  # characters of an error that the log keeps


def make_receipt(
    request: InstallRequest, decided: Decided, results: Sequence[SmokeResult], number: int
) -> Receipt:
    """The receipt of generation ``number``, whose variants answered with ``results``."""
    bundle = decided.verified.bundle
    return Receipt(
        name=bundle.name,
        version=bundle.version,
        sequence=bundle.sequence,
        generation=number,
        bundle=decided.verified.digest,
        signers=tuple(signer.key_id for signer in decided.verified.signers),
        variants=tuple(variant.name for variant in decided.variants),
        installed=format_timestamp(request.now),
        operator=request.operator,
        media=_medium_records(request.media),
        airpack=__version__,
        smoke=tuple(map(_smoke_record, results)),
        log=log_head(request.home.log),
        host_key=decided.host_key.key_id if decided.host_key else None,
    )


def _medium_records(media: Media) -> tuple[MediumRecord, ...]:
    if media.remote is not None:
        return (MediumRecord(media.remote.url),)
    return tuple(
        MediumRecord(label, **vars(identify_device(directory)))
        for label, directory in zip(media.labels, media.directories, strict=True)
    )


def _smoke_record(result: SmokeResult) -> SmokeRecord:
    return SmokeRecord(
        variant=result.variant,
        ok=result.ok,
        tokens_match=result.tokens_match,
        namespace=result.egress.namespace,
        millitokens_per_second=round(result.tokens_per_second * 1000),
    )


def write_receipt(receipt: Receipt, directory: Path, key: HostKey | None) -> None:
    """Write the receipt into the generation at ``directory``, signed if there is a ``key``."""
    data = encode_receipt(receipt)
    write_file(directory / RECEIPT_NAME, data)
    if key is not None:
        write_file(directory / RECEIPT_SIGNATURE_NAME, key.sign(data))


def record_install(request: InstallRequest, decided: Decided, receipt: Receipt) -> None:
    """Put the install into the log, with the digest of its receipt."""
    home = request.home
    details: dict[str, Json] = {
        "name": receipt.name,
        "version": receipt.version,
        "sequence": receipt.sequence,
        "generation": receipt.generation,
        "bundle": receipt.bundle.hex,
        "signers": list(receipt.signers),
        "variants": list(receipt.variants),
        "operator": receipt.operator,
        "media": [medium.path for medium in receipt.media],
        "smoke": "passed" if receipt.smoke else "not run",
        "receipt": Digest.of(encode_receipt(receipt)).hex,
        "downgrade_allowed": request.allow_downgrade,
        "misfits_forced": [misfit.what for misfit in decided.misfits],
        "trusted_for_this_run": [i for i in receipt.signers if read_keyring(home).find(i) is None],
    }
    append_event(home.log, "install", details, now=request.now)


def record_refusal(request: InstallRequest, error: AirpackError) -> None:
    """Put the refusal into the log, if that can be: the error itself is what counts."""
    message = error.message.encode("utf-8", "backslashreplace").decode("utf-8")
    details: dict[str, Json] = {
        "error": message[:_MAX_MESSAGE],
        "exit_code": error.exit_code,
        "operator": request.operator,
        "media": list(request.media.labels),
    }
    with suppress(AirpackError), request.home.changing():
        append_event(request.home.log, "refuse", details, now=request.now)
