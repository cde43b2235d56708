"""in-toto statements: what somebody says of some files (in-toto attestation framework, v1).

Source: ``spec/v1/statement.md`` and ``spec/v1/resource_descriptor.md`` of
github.com/in-toto/attestation; ``provenance.md`` of slsa.dev, v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

PROVENANCE_NAME = "provenance.json"
SBOM_NAME = "sbom.cdx.json"  # CycloneDX, made in packager.evidence and read by others
MAX_PROVENANCE_SIZE = 64 << 20  # bytes; 65,536 files take some 200 each

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"


def encode_statement(
    subjects: Mapping[str, Digest], predicate_type: str, predicate: Mapping[str, Json]
) -> bytes:
    """The statement ``predicate`` of the files ``subjects``, by their names; canonical JSON."""
    return canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": digest.hex}}
                for name, digest in subjects.items()
            ],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )


@dataclass(frozen=True)
class Acceptance:
    """Who accepted the ``licence`` of a ``source``, and when; ``gated``: the hub asked for it."""

    by: str
    when: str
    source: str
    licence: str | None
    gated: bool

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {
            "by": self.by,
            "when": self.when,
            "source": self.source,
            "licence": self.licence,
            "gated": self.gated,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Acceptance:
        """Read one; raises ``MalformedError``."""
        fields.only("by", "when", "source", "licence", "gated")
        return cls(
            by=fields.line("by"),
            when=fields.timestamp("when"),
            source=fields.line("source"),
            licence=fields.line("licence") if fields.has("licence") else None,
            gated=fields.flag("gated"),
        )


def parse_acceptances(data: bytes) -> tuple[Acceptance, ...]:
    """What the provenance ``data`` says of licences that were accepted; nothing else of it is read.

    Raises ``MalformedError`` for anything but a statement with SLSA provenance by airpack.
    """
    document = canonical.decode(data, what=PROVENANCE_NAME, max_size=MAX_PROVENANCE_SIZE)
    fields = Fields.of(document, PROVENANCE_NAME)
    for key, value in (("_type", STATEMENT_TYPE), ("predicateType", PROVENANCE_TYPE)):
        if fields.text(key) != value:
            raise fields.refuse(key, f"not {value}")
    definition = fields.mapping("predicate").mapping("buildDefinition")
    asked = definition.mapping("externalParameters")
    return asked.each("accepted", Acceptance.parse) if asked.has("accepted") else ()
