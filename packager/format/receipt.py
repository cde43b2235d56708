"""``receipt.json``: what the isolated host says happened at one install."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

RECEIPT_NAME = "receipt.json"
RECEIPT_SIGNATURE_NAME = f"{RECEIPT_NAME}.sig"
FORMAT = "airpack-receipt"
MAX_RECEIPT_SIZE = 1 << 20


@dataclass(frozen=True)
class SmokeRecord:
    """How one variant answered. ``millitokens_per_second`` is a rate times 1000."""

    variant: str
    ok: bool
    tokens_match: bool
    namespace: bool
    millitokens_per_second: int


@dataclass(frozen=True)
class MediumRecord:
    """A medium as it was mounted, and what it says of itself; ``None`` where it does not."""

    path: str
    label: str | None = None
    uuid: str | None = None
    model: str | None = None
    serial: str | None = None


@dataclass(frozen=True)
class LogHead:
    """How many ``events`` the host's log had before this one, and the last one's ``digest``."""

    events: int
    digest: Digest


@dataclass(frozen=True)
class Receipt:
    """One install: what, by whose word, when, from where, and with what result.

    ``host_key`` is the id of the key that signs it, if the host has one; ``log`` is where the
    log stood, so that one which was cut since then shows.
    """

    name: str
    version: str
    sequence: int
    generation: int
    bundle: Digest
    signers: tuple[str, ...]
    variants: tuple[str, ...]
    installed: str
    operator: str
    media: tuple[MediumRecord, ...]
    airpack: str
    smoke: tuple[SmokeRecord, ...]
    log: LogHead
    host_key: str | None = None


def encode_receipt(receipt: Receipt) -> bytes:
    """Write a receipt as canonical JSON, having read it back as any reader will."""
    data = canonical.encode(receipt_json(receipt))
    parse_receipt(data)
    return data


def receipt_json(receipt: Receipt) -> dict[str, Json]:
    """The receipt as a document."""
    return {
        "format": FORMAT,
        "name": receipt.name,
        "version": receipt.version,
        "sequence": receipt.sequence,
        "generation": receipt.generation,
        "bundle": receipt.bundle.hex,
        "signers": list(receipt.signers),
        "variants": list(receipt.variants),
        "installed": receipt.installed,
        "operator": receipt.operator,
        "media": [{**vars(medium)} for medium in receipt.media],
        "airpack": receipt.airpack,
        "smoke": [
            {
                "variant": record.variant,
                "ok": record.ok,
                "tokens_match": record.tokens_match,
                "namespace": record.namespace,
                "millitokens_per_second": record.millitokens_per_second,
            }
            for record in receipt.smoke
        ],
        "log": {"events": receipt.log.events, "digest": receipt.log.digest.hex},
        "host_key": receipt.host_key,
    }


def parse_receipt(data: bytes) -> Receipt:
    """Read a receipt; raises ``MalformedError``."""
    document = canonical.decode(data, what=RECEIPT_NAME, max_size=MAX_RECEIPT_SIZE)
    fields = Fields.of(document, RECEIPT_NAME)
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    fields.only("format", *(field.name for field in dataclasses.fields(Receipt)))
    return Receipt(
        name=fields.text("name"),
        version=fields.text("version"),
        sequence=fields.integer("sequence", least=1),
        generation=fields.integer("generation", least=1),
        bundle=fields.digest("bundle"),
        signers=fields.texts("signers"),
        variants=fields.texts("variants"),
        installed=fields.text("installed"),
        operator=fields.text("operator"),
        media=fields.each("media", _parse_medium),
        airpack=fields.text("airpack"),
        smoke=fields.each("smoke", _parse_smoke),
        log=_parse_head(fields.mapping("log")),
        host_key=fields.optional_text("host_key"),
    )


def _parse_medium(fields: Fields) -> MediumRecord:
    fields.only(*(field.name for field in dataclasses.fields(MediumRecord)))
    return MediumRecord(
        path=fields.text("path"),
        label=fields.optional_text("label"),
        uuid=fields.optional_text("uuid"),
        model=fields.optional_text("model"),
        serial=fields.optional_text("serial"),
    )


def _parse_head(fields: Fields) -> LogHead:
    fields.only("events", "digest")
    return LogHead(fields.integer("events"), fields.digest("digest"))


def _parse_smoke(fields: Fields) -> SmokeRecord:
    fields.only(*(field.name for field in dataclasses.fields(SmokeRecord)))
    return SmokeRecord(
        variant=fields.text("variant"),
        ok=fields.flag("ok"),
        tokens_match=fields.flag("tokens_match"),
        namespace=fields.flag("namespace"),
        millitokens_per_second=fields.integer("millitokens_per_second"),
    )
