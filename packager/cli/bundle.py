"""``airpack inspect`` and ``airpack verify``: looking at a bundle, on either side of the gap."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, file_argument, now, pub_option
from packager.cli.media import open_all_media
from packager.cli.screen import Screen
from packager.cli.text import counted, one_line, table
from packager.errors import AirpackError, IntegrityError, MissingVolumeError, UsageError
from packager.format.bundle import Bundle, Variant, parse_bundle
from packager.format.sizes import format_size
from packager.format.ticket import encode_ticket, make_ticket
from packager.isolated.media import Media, open_media, read_evidence, read_run_key
from packager.isolated.patch import open_patch, split_patches
from packager.isolated.recover import beyond_parity
from packager.isolated.repair import repair as repair_bundle
from packager.isolated.verify import Damage, Verification, authenticate, verify_media
from packager.store.atomic import naming_refusals, write_file

_COPY_AGAIN = (
    "airpack verify BUNDLE --ticket FILE asks the sender for what is lost; or copy the damaged "
    "files again from where the bundle was built"
)
_MORE_MEDIA = (
    "airpack verify MEDIUM MEDIUM..., with every medium of this bundle; --ticket FILE asks the "
    "sender for what is lost"
)

_FILES_SHOWN = 3


@click.command(cls=Command)
@click.argument("bundle", type=directory_argument)
@click.pass_obj
def inspect(screen: Screen, bundle: Path) -> None:
    """Say what BUNDLE claims to be. Verifies nothing."""
    evidence = read_evidence(open_media([bundle]))[0]
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
@click.option(
    "--ticket",
    type=file_argument,
    metavar="FILE",
    help="Write there the few lines that ask the sender for what parity cannot make good.",
)
@click.pass_obj
def verify(
    screen: Screen, bundles: tuple[Path, ...], keys: tuple[Path, ...], ticket: Path | None
) -> None:
    """Check the signature, every file and every chunk of BUNDLE, on all its media."""
    media, ring = open_all_media(screen, bundles, keys, whole=True)
    if ticket:
        _check_ticket_place(ticket, media)
    verified = authenticate(media, ring, now=now())
    found = verify_media(verified, media, screen)
    for volume in found.volumes:
        screen.detail(f"{volume.state}: {volume.name}, {volume.medium or 'on no medium'}")
    lines = _write_ticket(found, ticket, screen) if ticket else None
    document = _verify_document(found) | ({"ticket": lines} if ticket else {})
    if found.ok:
        screen.result(document, _verify_text(found))
    else:
        text = "\n".join([*_fault_lines(found), *([f"\n{lines.rstrip()}"] if lines else [])])
        screen.failure(document, text, _gravest_fault(found, ticket if lines else None))


@click.command(cls=Command)
@click.argument(
    "bundles", nargs=-1, required=True, type=directory_argument, metavar="BUNDLE... [PATCH...]"
)
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

    Where parity is not enough, PATCH is what the sender made for the ticket of `airpack verify
    --ticket`. With --to, DIR becomes one more medium: name it beside the others when you install.
    """
    if (to is None) == (not in_place):
        raise UsageError("say where to: --to DIR, or --in-place", hint="airpack repair --help")
    places, patch_places = split_patches(bundles)
    if not places:
        raise UsageError(f"{bundles[0]}: a patch; name the bundle that it mends too")
    for key in keys:
        read_run_key(key, Media(tuple(patch_places)))  # refuses one that came with the patch
    media, ring = open_all_media(screen, places, keys)
    verified = authenticate(media, ring, now=now())
    patches = [open_patch(place, verified, ring, now=now()) for place in patch_places]
    done = repair_bundle(verify_media(verified, media, screen), media, to, screen, patches)
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
    damage = [_damage_line(run) for run in _runs(found.damage)]
    missing = [f"missing: {name}" for name in found.missing]
    strangers = [f"not part of the bundle: {path}" for path in found.strangers]
    return [one_line(line) for line in (*damage, *missing, *strangers)]


def _runs(damage: Sequence[Damage]) -> list[list[Damage]]:
    """Neighbouring chunks of one volume together: a cut volume is one line, not thousands."""
    runs: list[list[Damage]] = []
    for entry in damage:
        before = runs[-1][-1] if runs else None
        if (
            before is not None
            and None not in (entry.chunk, before.chunk)
            and (entry.medium, entry.volume) == (before.medium, before.volume)
            and entry.offset == before.offset + before.size
        ):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _damage_line(run: Sequence[Damage]) -> str:
    first, last = run[0], run[-1]
    chunks = ""
    if first.chunk is not None:
        chunks = (
            f" chunk {first.chunk}" if first is last else f" chunks {first.chunk} to {last.chunk}"
        )
    files = list(dict.fromkeys(path for entry in run for path in entry.files))
    more = f" and {len(files) - _FILES_SHOWN} more" if len(files) > _FILES_SHOWN else ""
    return (
        f"damaged: {first.medium / first.volume}{chunks}, "
        f"bytes {first.offset} to {last.offset + last.size}"
        + (f": {', '.join(files[:_FILES_SHOWN])}{more}" if files else "")
    )


def _gravest_fault(found: Verification, ticket: Path | None) -> AirpackError:
    """The error that stands for all that was found: damage before strangers before gaps."""
    asking = f"airpack build BUNDLE --for-ticket {ticket} -o DIR --key FILE, at the sender's"
    title = found.verified.bundle.title
    if found.damage:
        return IntegrityError(
            f"{title}: damaged in {counted(len(found.damage), 'place')}",
            hint=_help(found, asking if ticket else _COPY_AGAIN),
        )
    if found.strangers:
        stranger = found.strangers[0]
        return IntegrityError(
            f"{title}: {counted(len(found.strangers), 'thing')} beside it that nobody signed",
            hint=f"find out who put it there; then remove it: rm -- {shlex.quote(str(stranger))}",
        )
    return MissingVolumeError(
        f"{title}: {counted(len(found.missing), 'file')} missing",
        hint=_help(found, asking if ticket else _MORE_MEDIA),
    )


def _check_ticket_place(file: Path, media: Media) -> None:
    """Refuse a place for the ticket that cannot be, before the hour that verifying takes."""
    with naming_refusals(file):
        parent = file.absolute().parent
        if not parent.is_dir():
            raise UsageError(f"{file}: there is no directory {parent}")
        if parent.resolve() in {directory.resolve() for directory in media.directories}:
            raise UsageError(f"{file}: in the bundle itself, where it would be a stranger")


def _write_ticket(found: Verification, file: Path, screen: Screen) -> str | None:
    """Ask in ``file`` for what parity cannot make good; returns the lines, if there are any."""
    bundle = found.verified.bundle
    wanted = beyond_parity(bundle, found.lost)
    if not wanted:
        screen.note("no ticket is needed: every chunk is good, or parity makes it good")
        return None
    try:
        text = encode_ticket(make_ticket(bundle, found.verified.digest, wanted))
    except UsageError as error:
        screen.warn(f"no ticket: {error.message}; {error.hint}")
        return None
    try:
        write_file(file, text.encode("ascii"))
    except AirpackError as error:  # what an hour of reading found is still to be shown
        screen.warn(f"the ticket is only shown here: {error.message}")
    return text


def _help(found: Verification, otherwise: str) -> str:
    """What mends it: parity where that is enough, which ``install`` also uses by itself."""
    return (
        "airpack repair BUNDLE --to DIR; install does by itself" if found.repairable else otherwise
    )
