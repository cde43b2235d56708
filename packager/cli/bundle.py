"""``airpack inspect`` and ``airpack verify``: looking at a bundle, on either side of the gap."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, keyring_for, now, pub_option
from packager.cli.screen import Screen
from packager.cli.text import counted, one_line, table
from packager.errors import AirpackError, IntegrityError, MissingVolumeError, UsageError
from packager.format.bundle import Bundle, Variant, parse_bundle
from packager.format.sizes import format_size
from packager.isolated.media import open_media, read_evidence
from packager.isolated.repair import repair as repair_bundle
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
            "variants": [_variant_document(index, v) for v in index.variants],
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
    for volume in found.volumes:
        screen.detail(f"{volume.state}: {volume.name}, {volume.medium or 'on no medium'}")
    document = _verify_document(found)
    if found.ok:
        screen.result(document, _verify_text(found))
    else:
        screen.failure(document, "\n".join(_fault_lines(found)), _gravest_fault(found))


@click.command(cls=Command)
@click.argument("bundles", nargs=-1, required=True, type=directory_argument, metavar="BUNDLE...")
@pub_option
@click.option(
    "--to", type=directory_argument, metavar="DIR", help="Write the volumes made whole there."
)
@click.option("--in-place", is_flag=True, help="Mend the bundle itself, where it is bad.")
@click.pass_obj
def repair(
    screen: Screen,
    bundles: tuple[Path, ...],
    keys: tuple[Path, ...],
    to: Path | None,
    in_place: bool,
) -> None:
    """Rebuild what is bad or missing of BUNDLE from its parity volumes.

    With --to, DIR becomes one more medium: name it beside the others when you install.
    """
    if (to is None) == (not in_place):
        raise UsageError("say where to: --to DIR, or --in-place", hint="airpack repair --help")
    media = open_media(bundles)
    verified = authenticate(media, keyring_for(media, keys), now=now())
    done = repair_bundle(verify_media(verified, media, screen), media, to, screen)
    screen.result(
        {"ok": True, "volumes": [str(path) for path in done.volumes], "chunks": done.chunks},
        "\n".join(
            [*(f"made whole: {path}" for path in done.volumes), f"{done.chunks} chunks rebuilt"]
        )
        if done.volumes
        else "nothing to repair: every volume has a good copy",
    )


def _variant_document(index: Bundle, variant: Variant) -> dict[str, object]:
    size = sum(file.size for file in index.variant_files(variant))
    return {"name": variant.name, "format": variant.format, "type": variant.type, "size": size}


def _inspect_text(index: Bundle, signatures: list[str]) -> str:
    origin, payload = index.origin, index.payload
    facts = [
        ("bundle", f"{index.title}, sequence {index.sequence}"),
        ("built", f"{index.created} by airpack {index.airpack}, engine {index.engine}"),
        ("expires", index.expires or "never"),
        ("source", f"{origin.repository}, revision {origin.revision}"),
        ("licence", origin.licence or "not stated"),
        ("signatures", f"{', '.join(signatures) or 'none yet'}; needs {index.signers}"),
        ("payload", f"{format_size(payload.size)} in {counted(len(index.volumes), 'volume')}"),
    ]
    variants = table([_variant_row(index, variant) for variant in index.variants]).splitlines()
    facts += [("variant" if n == 0 else "", line) for n, line in enumerate(variants)]
    warning = "NOT VERIFIED: what the bundle says of itself; airpack verify checks it"
    return f"{warning}\n{table(facts)}"


def _variant_row(index: Bundle, variant: Variant) -> tuple[str, ...]:
    size = sum(file.size for file in index.variant_files(variant))
    return variant.name, variant.format, variant.type, format_size(size)


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
        "repairable": found.repairable,
    }


def _damage_document(entry: Damage) -> dict[str, object]:
    return {
        "volume": entry.volume,
        "medium": str(entry.medium),
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
        f"{counted(len(bundle.volumes), 'volume')}, {format_size(bundle.payload.size)}, "
        f"every chunk as signed"
    )


def _fault_lines(found: Verification) -> list[str]:
    damage = [
        f"damaged: {entry.medium / entry.volume}"
        + (f" chunk {entry.chunk}" if entry.chunk is not None else "")
        + f", bytes {entry.offset} to {entry.offset + entry.size}"
        + (f": {', '.join(entry.files)}" if entry.files else "")
        for entry in found.damage
    ]
    missing = [f"missing: {name}" for name in found.missing]
    strangers = [f"not part of the bundle: {path}" for path in found.strangers]
    return [one_line(line) for line in (*damage, *missing, *strangers)]


def _gravest_fault(found: Verification) -> AirpackError:
    """The error that stands for all that was found: damage before strangers before gaps."""
    title = found.verified.bundle.title
    if found.damage:
        return IntegrityError(
            f"{title}: damaged in {counted(len(found.damage), 'place')}",
            hint=_help(found, "copy the damaged files again from where the bundle was built"),
        )
    if found.strangers:
        stranger = found.strangers[0]
        return IntegrityError(
            f"{title}: {counted(len(found.strangers), 'thing')} beside it that nobody signed",
            hint=f"find out who put it there; then remove it: rm {stranger}",
        )
    return MissingVolumeError(
        f"{title}: {counted(len(found.missing), 'file')} missing",
        hint=_help(found, "airpack verify MEDIUM MEDIUM..., with every medium of this bundle"),
    )


def _help(found: Verification, otherwise: str) -> str:
    """What mends it: parity where that is enough, which ``install`` also uses by itself."""
    return (
        "airpack repair BUNDLE --to DIR; install does by itself" if found.repairable else otherwise
    )
