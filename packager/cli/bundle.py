"""``airpack inspect``, ``verify`` and ``repair``: a bundle as it is, and as it should be."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.findings import (
    fault_lines,
    gap_lines,
    gravest_fault,
    verify_document,
    verify_text,
)
from packager.cli.hosts import directory_argument, file_argument, pub_option, reckoned
from packager.cli.inspection import (
    bundle_document,
    bundle_text,
    patch_document,
    patch_text,
    read_documents,
)
from packager.cli.media import check_beside, open_all_media, open_media_and_patches
from packager.cli.screen import Screen
from packager.cli.text import counted, listed
from packager.errors import AirpackError, IntegrityError, UsageError
from packager.format.bundle import parse_bundle
from packager.format.patch import parse_patch
from packager.format.ticket import encode_ticket, make_ticket
from packager.isolated.media import PATCH, Media, open_media, read_evidence
from packager.isolated.patch import open_patch, split_patches
from packager.isolated.recover import beyond_parity
from packager.isolated.repair import Repair
from packager.isolated.repair import repair as repair_bundle
from packager.isolated.verify import Verification, authenticate, verify_media
from packager.store.atomic import write_file


@click.command(cls=Command)
@click.argument("bundle", type=directory_argument)
@click.pass_obj
def inspect(screen: Screen, bundle: Path) -> None:
    """Say what BUNDLE claims to be. Verifies nothing."""
    _, patches = split_patches([bundle])
    if patches:
        evidence = read_evidence(Media(tuple(patches)), document=PATCH)[0]
        patch, signatures = parse_patch(evidence.index), sorted(evidence.signatures)
        screen.result(patch_document(patch, signatures), patch_text(patch, signatures, patches[0]))
        return
    media = open_media([bundle])
    evidence, documents = read_evidence(media)[0], read_documents(media)
    index, signatures = parse_bundle(evidence.index), sorted(evidence.signatures)
    screen.result(
        bundle_document(index, signatures, documents), bundle_text(index, signatures, documents)
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
        check_beside(ticket, media)
    verified = authenticate(media, ring, now=reckoned())
    found = verify_media(verified, media, screen)
    for volume in found.volumes:
        screen.detail(f"{volume.state}: {volume.name}, {volume.medium or 'on no medium'}")
    for line in gap_lines(found, media):
        screen.warn(line)
    lines = _write_ticket(found, ticket, screen) if ticket else None
    document = verify_document(found) | ({"ticket": lines} if ticket else {})
    if found.ok:
        screen.result(document, verify_text(found))
    else:
        text = "\n".join([*fault_lines(found), *([f"\n{lines.rstrip()}"] if lines else [])])
        screen.failure(document, text, gravest_fault(found, media, ticket if lines else None))


@click.command(cls=Command)
@click.argument(
    "bundles", nargs=-1, required=True, type=directory_argument, metavar="BUNDLE... [PATCH...]"
)
@pub_option
@click.option(
    "--to", type=directory_argument, metavar="DIR", help="Write what is made whole there."
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
    """Make whole what is bad or missing of BUNDLE, from what is good of it.

    Volumes are rebuilt from parity volumes, small files come back from their second copies. Where
    that is not enough, PATCH is what the sender made for the ticket of `airpack verify --ticket`.
    With --to, DIR becomes one more medium: name it beside the others when you install.
    """
    if (to is None) == (not in_place):
        raise UsageError("say where to: --to DIR, or --in-place", hint="airpack repair --help")
    media, places, ring = open_media_and_patches(screen, bundles, keys)
    verified = authenticate(media, ring, now=reckoned())
    patches = [open_patch(place, verified, ring, now=reckoned()) for place in places]
    done = repair_bundle(verify_media(verified, media, screen), media, to, screen, patches)
    document: dict[str, object] = {
        "ok": not done.beyond,
        "volumes": [str(path) for path in done.volumes],
        "chunks": done.chunks,
        "small_files": [str(path) for path in done.small_files],
        "beyond": list(done.beyond),
    }
    text = _repair_text(done, media, to and to / verified.bundle.title)
    if done.beyond:
        screen.failure(document, text, _beyond(done, verified.bundle.title, media))
    screen.result(document, text)


def _repair_text(done: Repair, media: Media, directory: Path | None) -> str:
    """What was made whole; in ``directory``, if that is one more medium now."""
    if not done.volumes and not done.small_files:
        return "" if done.beyond else "nothing to repair: every file has a good copy"
    lines = [f"made whole: {path}" for path in done.volumes]
    if directory is None:
        lines += [f"put back: {path}" for path in done.small_files]
    counts = [
        *([f"{counted(done.chunks, 'chunk')} rebuilt"] if done.chunks else ()),
        *([f"{counted(len(done.small_files), 'small file')} put back"] if done.small_files else ()),
    ]
    lines += [", ".join(counts)] if counts else []
    if directory is not None:
        words = shlex.join(map(str, (*media.directories, directory)))
        lines.append(f"{directory} is one more medium of it: airpack install {words}")
    return "\n".join(lines)


def _beyond(done: Repair, title: str, media: Media) -> AirpackError:
    """What ``repair`` could not do: small files of which nothing here has the bytes."""
    words = shlex.join(map(str, media.directories))
    return IntegrityError(
        f"{title}: no copy here of {listed(done.beyond)} is good",
        hint=f"airpack verify {words} --ticket FILE asks the sender; install needs none of it",
    )


def _write_ticket(found: Verification, file: Path, screen: Screen) -> str | None:
    """Ask in ``file`` for what nothing here makes good; returns the lines, if there are any."""
    bundle = found.verified.bundle
    chunks, files = beyond_parity(bundle, found.lost), found.lost_files
    if not chunks and not files:
        screen.note("no ticket is needed: everything is good, or what is here makes it good")
        return None
    try:
        text = encode_ticket(make_ticket(bundle, found.verified.digest, chunks, files))
    except UsageError as error:
        screen.warn(f"no ticket: {error.message}; {error.hint}")
        return None
    try:
        write_file(file, text.encode("ascii"))
    except AirpackError as error:  # what an hour of reading found is still to be shown
        screen.warn(f"the ticket is only shown here: {error.message}")
    return text
