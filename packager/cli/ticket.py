"""``airpack build --for-ticket``: the little that a host could not make good itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
from click.core import ParameterSource

from packager.cli.passphrases import unlock
from packager.cli.screen import Screen
from packager.cli.text import counted
from packager.connected.packing.ticket import build_patch
from packager.errors import UsageError
from packager.format.ticket import MAX_TICKET_SIZE, Ticket, parse_ticket
from packager.store.atomic import read_capped

_TAKEN = {"recipe", "output", "keys", "passphrase_file", "passphrase_fd", "for_ticket"}


def answer_ticket(
    screen: Screen,
    source: Path,
    output: Path,
    keys: tuple[Path, ...],
    passphrase_file: Path | None,
    file: Path,
) -> None:
    """Build the patch that the ticket ``file`` asks for from the bundle in ``source``."""
    _check_options()
    if not source.is_dir():
        raise UsageError(
            f"{source}: --for-ticket takes the directory of the bundle, as it was built",
            hint=f"airpack build BUNDLE --for-ticket {file} -o DIR --key FILE",
        )
    ticket = parse_ticket(read_capped(file.resolve(), MAX_TICKET_SIZE), str(file))
    signing = tuple(unlock(screen, path, passphrase_file) for path in keys)
    made = build_patch(ticket, source, output, signing, screen)
    if not signing:
        screen.warn(f"not signed; no host will take it before: airpack sign {made} --key FILE")
    screen.result(
        {
            "ok": True,
            "bundle": ticket.title,
            "path": str(made),
            "chunks": list(ticket.chunks),
            "files": len(ticket.files),
            "signers": [key.public.key_id for key in signing],
            "size": sum(path.stat().st_size for path in made.iterdir()),
        },
        f"built: {made}, {_counts(ticket)}\n"
        f"carry it over, and there: airpack repair BUNDLE {made.name} --in-place",
    )


def _counts(ticket: Ticket) -> str:
    kinds = (("chunk", ticket.chunks), ("file", ticket.files))
    return " and ".join(counted(len(numbers), kind) for kind, numbers in kinds if numbers)


def _check_options() -> None:
    """Refuse what was asked for beside and means nothing for a patch."""
    context = click.get_current_context()
    shared = {field.name for field in fields(Screen)}
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _TAKEN | shared:
            raise UsageError(f"{option.opts[0]} and --for-ticket exclude each other")
