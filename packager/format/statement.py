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
REPORT_NAME = "report.html"  # for people; made in packager.evidence too
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


@dataclass(frozen=True)
class FallbackTensor:
    """A tensor whose rows did not fit the type that was wanted, so that it got ``type``."""

    name: str
    wanted: str
    type: str

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {"name": self.name, "wanted": self.wanted, "type": self.type}

    @classmethod
    def parse(cls, fields: Fields) -> FallbackTensor:
        """Read one; raises ``MalformedError``."""
        return cls(fields.text("name"), fields.text("wanted"), fields.text("type"))


@dataclass(frozen=True)
class MadeAs:
    """How the variant ``name`` came to be, as its provenance tells it.

    ``matrix`` is the importance matrix that was used, if any. ``fallbacks`` is how many tensors got
    another type than was wanted, ``named`` the first of them. ``rendered`` is what the chat
    template made of the first smoke prompt, no more than its beginning where it is long.
    """

    name: str
    step: str
    matrix: Digest | None
    fallbacks: int
    named: tuple[FallbackTensor, ...] = ()
    rendered: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> MadeAs:
        """Read one, of this airpack or an earlier one; raises ``MalformedError``."""
        return cls(
            name=fields.text("name"),
            step=fields.line("step"),
            matrix=fields.mapping("matrix").digest("sha256") if fields.has("matrix") else None,
            fallbacks=fields.integer("fallbacks"),
            named=fields.each("named", FallbackTensor.parse) if fields.has("named") else (),
            rendered=fields.optional_text("rendered"),
        )


@dataclass(frozen=True)
class Account:
    """What the provenance says of licences that were accepted, and of how each variant was made."""

    acceptances: tuple[Acceptance, ...]
    makings: tuple[MadeAs, ...]

    def of(self, variant: str) -> MadeAs | None:
        """How ``variant`` was made, if the provenance tells."""
        return next((made for made in self.makings if made.name == variant), None)


def parse_account(data: bytes) -> Account:
    """What a report tells of the provenance ``data``; raises as :func:`parse_acceptances` does."""
    definition = _definition(data)
    made = definition.mapping("internalParameters")
    return Account(_acceptances(definition), made.each("variants", MadeAs.parse))


def parse_acceptances(data: bytes) -> tuple[Acceptance, ...]:
    """What the provenance ``data`` says of licences that were accepted; nothing else of it is read.

    Raises ``MalformedError`` for anything but a statement with SLSA provenance by airpack.
    """
    return _acceptances(_definition(data))


def _definition(data: bytes) -> Fields:
    document = canonical.decode(data, what=PROVENANCE_NAME, max_size=MAX_PROVENANCE_SIZE)
    fields = Fields.of(document, PROVENANCE_NAME)
    for key, value in (("_type", STATEMENT_TYPE), ("predicateType", PROVENANCE_TYPE)):
        if fields.text(key) != value:
            raise fields.refuse(key, f"not {value}")
    return fields.mapping("predicate").mapping("buildDefinition")


def _acceptances(definition: Fields) -> tuple[Acceptance, ...]:
    asked = definition.mapping("externalParameters")
    return asked.each("accepted", Acceptance.parse) if asked.has("accepted") else ()
