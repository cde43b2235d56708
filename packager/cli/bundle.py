"""``airpack inspect`` and ``airpack verify``: looking at a bundle, on either side of the gap."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, keyring_for, now, pub_option
from packager.cli.screen import Screen
from packager.errors import IntegrityError, MissingVolumeError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.sizes import format_size
from packager.isolated.media import open_media, read_evidence
from packager.isolated.verify import Damage, Verification, authenticate, verify_media


@click.command(cls=Command)
@click.argument("bundle", type=directory_argument)
@click.pass_obj
def inspect(screen: Screen, bundle: Path) -> None:
    """Say what BUNDLE claims to be. Verifies nothing."""
    evidence = read_evidence(open_media([bundle]))
    index = parse_bundle(evidence.index)
    screen.result(
        {
            "verified": False,
            "name": index.name,
            "version": index.version,
            "sequence": index.sequence,
            "created": index.created,
            "expires": index.expires,
            "signatures": sorted(evidence.signatures),
            "source": {
                "kind": index.origin.kind,
                "repository": index.origin.repository,
                "revision": index.origin.revision,
                "licence": index.origin.licence,
            },
            "airpack": index.airpack,
            "engine": index.engine,
            "payload_size": index.payload.size,
            "volumes": [{"name": v.name, "size": v.size} for v in index.volumes],
            "variants": [_variant_document(index, v.name) for v in index.variants],
        },
        _inspect_text(index, sorted(evidence.signatures)),
    )


@click.command(cls=Command)
@click.argument("bundles", nargs=-1, required=True, type=directory_argument, metavar="BUNDLE...")
@pub_option
@click.pass_obj
def verify(screen: Screen, bundles: tuple[Path, ...], keys: tuple[Path, ...]) -> None:
    """Check the signature, every file and every chunk of BUNDLE, on all its media."""
    media = open_media(bundles)
    verified = authenticate(media, keyring_for(media, keys), now=now())
    found = verify_media(verified, media, screen)
    if found.ok or screen.as_json:
        screen.result(_verify_document(found), _verify_text(found))
    if not found.ok:
        for line in _fault_lines(found):
            screen.note(line)
        _raise_fault(screen, found)


def _variant_document(index: Bundle, name: str) -> dict[str, object]:
    variant = next(v for v in index.variants if v.name == name)
    size = sum(file.size for file in index.variant_files(variant))
    return {"name": name, "format": variant.format, "type": variant.type, "size": size}


def _inspect_text(index: Bundle, signatures: list[str]) -> str:
    lines = [
        "NOT VERIFIED: this is what the bundle says of itself (airpack verify checks it)",
        f"bundle     {index.title}, sequence {index.sequence}, built {index.created}",
        f"source     {index.origin.repository} at {index.origin.revision}",
        f"licence    {index.origin.licence or 'not stated'}",
        f"signed by  {', '.join(signatures) or 'nobody yet'}",
        f"payload    {format_size(index.payload.size)} in {len(index.volumes)} volume(s)",
    ]
    for variant in index.variants:
        size = sum(file.size for file in index.variant_files(variant))
        lines.append(f"variant    {variant.name}: {variant.type}, {format_size(size)}")
    return "\n".join(lines)


def _verify_document(found: Verification) -> dict[str, object]:
    bundle = found.verified.bundle
    return {
        "ok": found.ok,
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "sequence": bundle.sequence,
        },
        "signers": [signer.key_id for signer in found.verified.signers],
        "volumes": [
            {"name": v.name, "medium": str(v.medium) if v.medium else None, "state": v.state}
            for v in found.volumes
        ],
        "damage": [_damage_document(entry) for entry in found.damage],
        "missing": list(found.missing),
        "strangers": [str(path) for path in found.strangers],
        "repairable": False,
    }


def _damage_document(entry: Damage) -> dict[str, object]:
    return {
        "volume": entry.volume,
        "chunk": entry.chunk,
        "offset": entry.offset,
        "size": entry.size,
        "files": list(entry.files),
    }


def _verify_text(found: Verification) -> str:
    bundle = found.verified.bundle
    signers = ", ".join(f"{s.name} ({s.key_id})" for s in found.verified.signers)
    return (
        f"ok: {bundle.title}, sequence {bundle.sequence}, signed by {signers}\n"
        f"{len(bundle.volumes)} volume(s), {format_size(bundle.payload.size)}, "
        f"every chunk as signed"
    )


def _fault_lines(found: Verification) -> list[str]:
    damage = [
        f"damaged: {entry.volume}"
        + (f" chunk {entry.chunk}" if entry.chunk is not None else "")
        + f", bytes {entry.offset} to {entry.offset + entry.size}"
        + (f": {', '.join(entry.files)}" if entry.files else "")
        for entry in found.damage
    ]
    missing = [f"missing: {name}" for name in found.missing]
    strangers = [f"not part of the bundle: {path}" for path in found.strangers]
    return [*damage, *missing, *strangers]


def _raise_fault(screen: Screen, found: Verification) -> None:
    """End with the code of the gravest fault; under ``--json`` the document said it all."""
    title = found.verified.bundle.title
    error: IntegrityError | MissingVolumeError
    if found.damage or found.strangers:
        faults = len(found.damage) + len(found.strangers)
        error = IntegrityError(
            f"{title}: {faults} fault(s)", hint="copy the bundle again from its source"
        )
    else:
        error = MissingVolumeError(
            f"{title}: {len(found.missing)} file(s) missing",
            hint="name every medium of this bundle, or copy what is missing again",
        )
    if screen.as_json:
        raise click.exceptions.Exit(error.exit_code)
    raise error
