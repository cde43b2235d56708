"""What ``airpack inspect`` says of a bundle, a delta or a patch: by its own word, unverified."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.cli.text import counted, listed, table
from packager.format.bundle import Bundle
from packager.format.envelope import envelope_key_id
from packager.format.held import HeldFile
from packager.format.patch import Patch
from packager.format.quality import MILLIONTHS, NANONATS, Quality
from packager.format.sizes import format_size
from packager.format.statement import PROVENANCE_NAME, SBOM_NAME, Acceptance
from packager.format.sums import SPARE_PREFIX
from packager.format.ticket import format_ranges
from packager.format.variant import Variant
from packager.isolated.media import Media
from packager.isolated.provenance import read_acceptances

_WARNING = "NOT VERIFIED: what the {kind} says of itself; airpack {check}"


@dataclass(frozen=True)
class Documents:
    """What there is for others to read; ``envelopes`` are the keys that signed the provenance."""

    names: tuple[str, ...]
    envelopes: tuple[str, ...]
    acceptances: tuple[Acceptance, ...]


def read_documents(media: Media) -> Documents:
    """What is on ``media``, by its own word."""
    there = {name.removeprefix(SPARE_PREFIX) for _, name in media.names()}
    return Documents(
        names=tuple(name for name in (SBOM_NAME, PROVENANCE_NAME) if name in there),
        envelopes=tuple(sorted(filter(None, map(envelope_key_id, there)))),
        acceptances=read_acceptances(media),
    )


def bundle_document(
    index: Bundle, signatures: Sequence[str], documents: Documents
) -> dict[str, object]:
    """A bundle or a delta, for a script."""
    return {
        "verified": False,
        "kind": "delta" if index.is_delta else "bundle",
        "name": index.name,
        "version": index.version,
        "sequence": index.sequence,
        "created": index.created,
        "expires": index.expires,
        "signatures": list(signatures),
        "source": {
            "kind": index.origin.kind,
            "repository": index.origin.repository,
            "revision": index.origin.revision,
            "licence": index.origin.licence,
        },
        "accepted": [acceptance.encode() for acceptance in documents.acceptances],
        "documents": list(documents.names),
        "provenance_signatures": list(documents.envelopes),
        "airpack": index.airpack,
        "engine": index.engine,
        "payload_size": index.payload.size,
        "volumes": [{"name": v.name, "size": v.size} for v in index.volumes],
        "parity": [{"name": v.name, "size": v.size} for v in index.parity],
        "variants": [_variant_document(index, v) for v in index.variants],
        "base": index.base.hex if index.base else None,
        "held": [
            {"bundle": title, "files": len(files), "size": _size(files)}
            for title, files in _held_by_bundle(index).items()
        ],
        "set_up_with": index.set_up_with.bundle if index.set_up_with else None,
    }


def _variant_document(index: Bundle, variant: Variant) -> dict[str, object]:
    size = sum(file.size for file in index.variant_files(variant))
    return {
        "name": variant.name,
        "format": variant.format,
        "type": variant.type,
        "size": size,
        "base": variant.base.variant if variant.base else None,
        "quality": _quality_document(variant.quality) if variant.quality else None,
    }


def _quality_document(quality: Quality) -> dict[str, object]:
    return {
        "baseline": quality.baseline,
        "tokens": quality.tokens,
        "perplexity": quality.perplexity,
        "perplexity_original": quality.original_perplexity,
        "perplexity_increase": quality.increase,
        "divergence": quality.divergence / NANONATS,
        "same_top_token": quality.agreement / MILLIONTHS,
    }


def bundle_text(index: Bundle, signatures: Sequence[str], documents: Documents) -> str:
    """A bundle or a delta, for a person."""
    origin, payload = index.origin, index.payload
    parity = f", and {len(index.parity)} of parity" if index.parity else ""
    facts = [
        ("bundle", f"{index.title}, sequence {index.sequence}"),
        *_delta_rows(index),
        ("built", f"{index.created} by airpack {index.airpack}, engine {index.engine}"),
        ("expires", index.expires or "never"),
        ("source", f"{origin.repository}, revision {origin.revision}"),
        ("licence", origin.licence or "not stated"),
        *(("accepted", _acceptance_words(acceptance)) for acceptance in documents.acceptances),
        *([("documents", ", ".join(documents.names))] if documents.names else []),
        ("signatures", f"{', '.join(signatures) or 'none yet'}; needs {index.signers}"),
        (
            "payload",
            f"{format_size(payload.size)} in {counted(len(index.volumes), 'volume')}{parity}",
        ),
    ]
    variants = table([_variant_row(index, variant) for variant in index.variants]).splitlines()
    facts += [("variant" if n == 0 else "", line) for n, line in enumerate(variants)]
    facts += [("quality", f"{v.name}: {v.quality.line}") for v in index.variants if v.quality]
    return f"{_WARNING.format(kind='bundle', check='verify checks it')}\n{table(facts)}"


def _acceptance_words(acceptance: Acceptance) -> str:
    gated = ", gated" if acceptance.gated else ""
    licence = acceptance.licence or "licence not stated"
    return f"{licence} of {acceptance.source}{gated}, by {acceptance.by}, {acceptance.when}"


def _variant_row(index: Bundle, variant: Variant) -> tuple[str, ...]:
    size = sum(file.size for file in index.variant_files(variant))
    bound = f"on {variant.base.variant}" if variant.base else ""
    return variant.name, variant.format, variant.type, format_size(size), bound


def _delta_rows(index: Bundle) -> list[tuple[str, str]]:
    """What is not in it, and which earlier bundles carried that; nothing for one that is whole."""
    rows: list[tuple[str, str]] = []
    if index.held:
        total = f"{counted(len(index.held), 'file')}, {format_size(_size(index.held))}"
        rows.append(("delta", f"without {total}, which the host must have installed:"))
    for title, files in _held_by_bundle(index).items():
        total = f"{counted(len(files), 'file')}, {format_size(_size(files))}"
        rows.append(("", f"from {title}: {total}"))
    if setup := index.set_up_with:
        size = format_size(setup.size)
        rows.append(
            ("delta", f"without airpack itself, {size}: the host was set up with {setup.bundle}")
        )
    return rows


def _held_by_bundle(index: Bundle) -> dict[str, list[HeldFile]]:
    held: dict[str, list[HeldFile]] = defaultdict(list)
    for file in index.held:
        held[file.bundle].append(file)
    return dict(sorted(held.items()))


def _size(files: Sequence[HeldFile]) -> int:
    return sum(file.size for file in files)


def patch_document(patch: Patch, signatures: Sequence[str]) -> dict[str, object]:
    """A patch, for a script."""
    return {
        "verified": False,
        "kind": "patch",
        "bundle": patch.title,
        "sums": patch.bundle.hex,
        "chunks": [chunk.number for chunk in patch.chunks],
        "files": [file.name for file in patch.files],
        "size": patch.size,
        "signatures": list(signatures),
    }


def patch_text(patch: Patch, signatures: Sequence[str], directory: Path) -> str:
    """A patch, for a person."""
    facts = [
        ("patch", f"for {patch.title}, whose SHA256SUMS has the digest {patch.bundle.hex[:16]}..."),
        ("chunks", format_ranges(chunk.number for chunk in patch.chunks)[:200] or "none"),
        ("files", listed(file.name for file in patch.files) or "none"),
        ("size", format_size(patch.size)),
        ("signatures", ", ".join(signatures) or "none yet"),
    ]
    warning = _WARNING.format(kind="patch", check=f"repair BUNDLE {directory} --in-place takes it")
    return f"{warning}\n{table(facts)}"
