"""``airpack copy``: onto the media that travel."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument
from packager.cli.screen import Screen
from packager.cli.text import counted, listed, one_line
from packager.errors import AirpackError, MissingVolumeError, NoSpaceError
from packager.format.sizes import format_size
from packager.isolated.copy import copy_share
from packager.isolated.source import Source, open_source
from packager.isolated.spread import Plan, Share, plan_copy


@click.command(cls=Command)
@click.argument("bundle", type=directory_argument)
@click.argument("to", nargs=-1, required=True, type=directory_argument, metavar="TO...")
@click.option("--verify", is_flag=True, help="Read back what was written, from the medium itself.")
@click.pass_obj
def copy(screen: Screen, bundle: Path, to: tuple[Path, ...], verify: bool) -> None:
    """Copy BUNDLE to one medium or several: each TO is a directory on one.

    Whole volumes are spread over the media in their order, and each medium gets all small files.
    Where one run ends too early, the same command goes on. Checks the bytes, and no signature.
    """
    source = open_source(bundle)
    for stranger in source.strangers:
        screen.warn(f"not part of the bundle, not copied: {one_line(str(stranger))}")
    plan = plan_copy(source, to, source.volume_names)
    _refuse_if_nothing_fits(source, plan)
    shares: list[Share] = []
    while True:
        shares += _carry_out(screen, source, plan, verify=verify)
        if not plan.left or not screen.may_ask:
            break
        plan = _next_plan(screen, source, plan.left, to)
    document = _document(source, shares, plan.left, verify=verify)
    if plan.left:
        screen.failure(document, _text(shares), _left_error(source, bundle, to, plan.left))
    screen.result(document, _text(shares))


def _carry_out(screen: Screen, source: Source, plan: Plan, *, verify: bool) -> tuple[Share, ...]:
    """Say what each medium gets, then copy it; returns the shares."""
    for share in plan.shares:
        names = listed(volume.name for volume in share.volumes) or "no volume"
        rest = f"{format_size(share.missing)} of it to be written" if share.missing else "all there"
        screen.note(
            f"{share.directory}: {format_size(share.size)} ({share.size} bytes): {names}, and the "
            f"small files; {rest}, and room for {format_size(share.room)} more"
        )
    if plan.left:
        screen.note(f"no room yet for {listed(plan.left)}: {_needed(source, plan.left)}")
    for share in plan.shares:
        copy_share(source, share, screen, verify=verify)
    return plan.shares


def _left_size(source: Source, left: Sequence[str]) -> int:
    return sum(volume.size for volume in source.bundle.volume_files if volume.name in left)


def _least_medium(source: Source, left: Sequence[str]) -> int:
    """The bytes that one more medium needs, to take any of the volumes ``left``."""
    sizes = (volume.size for volume in source.bundle.volume_files if volume.name in left)
    return sum(file.size for file in source.small) + min(sizes, default=0)


def _needed(source: Source, left: Sequence[str]) -> str:
    least = _least_medium(source, left)
    return (
        f"{format_size(_left_size(source, left))} more, for which a medium needs "
        f"{format_size(least)} ({least} bytes) at least"
    )


def _refuse_if_nothing_fits(source: Source, plan: Plan) -> None:
    if not plan.left or any(share.volumes for share in plan.shares):
        return
    size = next(v.size for v in source.bundle.volume_files if v.name == plan.left[0])
    where = ", ".join(
        f"{share.directory.parent} ({format_size(share.room)} free beside the small files)"
        for share in plan.shares
    )
    raise NoSpaceError(
        f"{where}: no room for {plan.left[0]}, which is {format_size(size)}, nor for any other",
        hint="take larger media, or build again with a smaller --volume-size",
    )


def _next_plan(screen: Screen, source: Source, left: Sequence[str], named: Sequence[Path]) -> Plan:
    """Wait for the next medium that has room for one of the volumes ``left``."""
    while True:
        answer = screen.ask(
            f"still to be copied: {listed(left)}; {_needed(source, left)}",
            "Enter once the next medium is mounted in the place of one, or its directory",
        )
        targets = [Path(answer).expanduser()] if answer else named
        try:
            plan = plan_copy(source, targets, left)
        except AirpackError as error:
            screen.warn(one_line(error.message))
            continue
        if shares := tuple(share for share in plan.shares if share.volumes):
            return Plan(shares, plan.left)
        screen.warn("no room there for any of them")


def _left_error(
    source: Source, bundle: Path, to: Sequence[Path], left: Sequence[str]
) -> MissingVolumeError:
    words = shlex.join(["airpack", "copy", str(bundle), *map(str, to)])
    return MissingVolumeError(
        f"{source.bundle.title}: still to be copied: {', '.join(left)}; {_needed(source, left)}",
        hint=f"{words} NEXT, where NEXT is one more medium; what is copied is kept",
    )


def _document(
    source: Source, shares: Sequence[Share], left: Sequence[str], *, verify: bool
) -> dict[str, object]:
    return {
        "ok": not left,
        "media": [
            {
                "path": str(share.directory),
                "volumes": [volume.name for volume in share.volumes],
                "size": share.size,
            }
            for share in shares
        ],
        "left": list(left),
        "left_size": _left_size(source, left),
        "least_medium": _least_medium(source, left) if left else None,
        "verified": verify,
        "signatures_checked": False,
    }


def _text(shares: Sequence[Share]) -> str:
    lines = [
        f"copied: {share.directory}, {counted(len(share.volumes), 'volume')}, "
        f"{format_size(share.size)}"
        for share in shares
    ]
    media = shlex.join(dict.fromkeys(str(share.directory) for share in shares))
    return "\n".join([*lines, f"no signature was checked: airpack verify {media}"])
