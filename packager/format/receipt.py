"""``receipt.json``: what the isolated host says happened at one install."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

RECEIPT_NAME = "receipt.json"
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
class Receipt:
    """One install: what, by whose word, when, from where, and with what result."""

    name: str
    version: str
    sequence: int
    generation: int
    bundle: Digest
    signers: tuple[str, ...]
    variants: tuple[str, ...]
    installed: str
    operator: str
    media: tuple[str, ...]
    airpack: str
    smoke: tuple[SmokeRecord, ...]


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
        "media": list(receipt.media),
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
        media=fields.texts("media"),
        airpack=fields.text("airpack"),
        smoke=fields.each("smoke", _parse_smoke),
    )


def _parse_smoke(fields: Fields) -> SmokeRecord:
    fields.only(*(field.name for field in dataclasses.fields(SmokeRecord)))
    return SmokeRecord(
        variant=fields.text("variant"),
        ok=fields.flag("ok"),
        tokens_match=fields.flag("tokens_match"),
        namespace=fields.flag("namespace"),
        millitokens_per_second=fields.integer("millitokens_per_second"),
    )
