"""What ``airpack verify`` found, as a document and as lines for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from packager.cli.text import counted, listed, one_line
from packager.errors import AirpackError, IntegrityError, MissingVolumeError
from packager.format.envelope import envelope_key_id, envelope_name
from packager.format.model_signature import MODEL_SIGNATURE
from packager.format.sizes import format_size
from packager.format.statement import PROVENANCE_NAME
from packager.format.sums import SPARE_PREFIX
from packager.isolated.media import Media
from packager.isolated.small import SmallFileState
from packager.isolated.verify import REPAIRABLE, Damage, Verification

_FILES_SHOWN = 3


def verify_document(found: Verification) -> dict[str, object]:
    """All of it, for a script."""
    bundle = found.verified.bundle
    return {
        "ok": found.ok,
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "sequence": bundle.sequence,
        },
        "signers": [signer.key_id for signer in found.verified.signers],
        "provenance_signers": provenance_signers(found),
        "volumes": [
            {"name": v.name, "medium": str(v.medium) if v.medium else None, "state": v.state}
            for v in found.volumes
        ],
        "small_files": [_small_document(found, file) for file in found.small_files],
        "damage": [_damage_document(entry) for entry in found.damage],
        "missing": list(found.missing),
        "strangers": [str(path) for path in found.strangers],
        "repairable": found.repairable,
    }


def provenance_signers(found: Verification) -> list[str]:
    """The key ids of the signers whose envelope round the provenance is there, and holds."""
    good = {file.name for file in found.small_files if file.is_good}
    signers = [signer.key_id for signer in found.verified.signers]
    return [key_id for key_id in signers if envelope_name(key_id) in good]


def _small_document(found: Verification, file: SmallFileState) -> dict[str, object]:
    state = found.state_of(file)
    source = _source(file) if state == REPAIRABLE else None
    return {"name": file.name, "medium": str(file.medium), "state": state, "source": source}


def _damage_document(entry: Damage) -> dict[str, object]:
    return {
        "volume": entry.volume,
        "medium": str(entry.medium),
        "chunk": entry.chunk,
        "offset": entry.offset,
        "size": entry.size,
        "files": list(entry.files),
    }


def verify_text(found: Verification) -> str:
    """Two or three lines for a bundle that is whole."""
    bundle = found.verified.bundle
    signers = ", ".join(f"{s.name} ({s.key_id})" for s in found.verified.signers)
    return (
        f"ok: {bundle.title}, sequence {bundle.sequence}, signed by {signers}\n"
        f"{counted(len(bundle.volumes), 'volume')}, {format_size(bundle.payload.size)}, "
        f"every chunk as signed"
        + "".join(f"\nprovenance signed by {key_id}" for key_id in provenance_signers(found))
    )


def fault_lines(found: Verification) -> list[str]:
    """A line for each thing that is wrong; what is missing on all media has one."""
    small = {file.name: file for file in found.small_files}
    chunks = [entry for entry in found.damage if entry.volume not in small]
    damage = [_damage_line(run) for run in _runs(chunks)]
    bad = [
        f"damaged: {file.path}: {_remedy(found, file)}"
        for file in found.small_faults
        if file.size is not None
    ]
    missing = [
        f"missing: {name}" + (f": {_remedy(found, small[name])}" if name in small else "")
        for name in found.missing
    ]
    strangers = [f"not part of the bundle: {path}" for path in found.strangers]
    return [one_line(line) for line in (*damage, *bad, *missing, *strangers)]


def gap_lines(found: Verification, media: Media) -> list[str]:
    """A line for each medium that lacks small files which another has, or the spare copy of one."""
    lines: list[str] = []
    for directory in media.directories:
        names = [file.name for file in found.small_gaps if file.medium == directory]
        if names:
            lines.append(
                f"{directory}: lacks {listed(names)}; what puts that there: {repair_command(media)}"
            )
    return [one_line(line) for line in lines]


def repair_command(media: Media) -> str:
    """The command that mends these media where they are."""
    return shlex.join(["airpack", "repair", *map(str, media.directories), "--in-place"])


def _remedy(found: Verification, file: SmallFileState) -> str:
    """What there is to do about a small file that is bad or missing."""
    if found.state_of(file) == REPAIRABLE:
        return f"repair puts it back, from {_source(file)}"
    if file.name.endswith(MODEL_SIGNATURE):
        return "no copy here holds over the index; copy it from where it was built, or remove it"
    if envelope_key_id(file.name.removeprefix(SPARE_PREFIX)):
        return f"no copy here is signed over {PROVENANCE_NAME}; copy it again, or remove it"
    if file.digest is None:
        return "its copies differ, and this host does not know the key that tells which is right"
    if file.source is not None:
        return "its copy in the payload is lost too"
    return "no copy of it here is good"


def _source(file: SmallFileState) -> str | None:
    """Where its bytes are to be had."""
    if isinstance(file.source, Path):
        near = file.source.parent == file.medium
        return file.source.name if near else str(file.source)
    return f"the payload ({file.source.path})" if file.source else None


def _runs(damage: Iterable[Damage]) -> list[list[Damage]]:
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


def gravest_fault(found: Verification, media: Media, ticket: Path | None) -> AirpackError:
    """The error that stands for all that was found: damage before strangers before gaps.

    ``ticket`` is the one that was written for it, if one was.
    """
    title = found.verified.bundle.title
    if found.damage:
        missing = f", {counted(len(found.missing), 'file')} missing" if found.missing else ""
        return IntegrityError(
            f"{title}: damaged in {counted(len(found.damage), 'place')}{missing}",
            hint=_help(found, media, ticket),
        )
    if found.strangers:
        stranger = found.strangers[0]
        return IntegrityError(
            f"{title}: {counted(len(found.strangers), 'thing')} beside it that nobody signed",
            hint=f"find out who put it there; then remove it: rm -- {shlex.quote(str(stranger))}",
        )
    return MissingVolumeError(
        f"{title}: {counted(len(found.missing), 'file')} missing",
        hint=_help(found, media, ticket),
    )


def _help(found: Verification, media: Media, ticket: Path | None) -> str:
    """What mends it: ``repair`` where what is here is enough, else the sender."""
    if found.repairable:
        small = {file.name for file in found.small_files}
        # install takes no volume that is too long, or that is none
        as_is = all(entry.chunk is not None or entry.volume in small for entry in found.damage)
        return (
            f"{repair_command(media)}, or --to DIR if that cannot be written to"
            f"{'; install needs no repair' if as_is else ''}"
        )
    if ticket:
        return f"airpack build BUNDLE --for-ticket {ticket} -o DIR --key FILE, at the sender's"
    media_words = shlex.join(map(str, media.directories))
    asking = f"airpack verify {media_words} --ticket FILE asks the sender for what is lost"
    if found.missing and not found.damage:
        return f"name every medium of this bundle; if that is all, {asking}"
    return f"{asking}; or copy the damaged files again from where the bundle was built"
