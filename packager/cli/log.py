"""``airpack log``: what happened on this host, and whether the record of it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from packager.cli.command import Command
from packager.cli.hosts import home
from packager.cli.screen import Screen
from packager.cli.text import one_line, table
from packager.errors import IntegrityError, UsageError
from packager.format.canonical import Json
from packager.isolated.custody import sheet_of_generation
from packager.isolated.lifecycle import verify_history
from packager.store.generations import find_generation
from packager.store.journal import Event, read_events

# The order in which an event's details are shown; what is not named here comes last.
_DETAILS = ("name", "version", "sequence", "generation", "generations", "smoke", "subject", "freed")
_NOT_WHOLE = (
    "copy it away as it is, for whoever answers for this host; airpack log --custody NAME "
    "shows what an install's own receipt says"
)
_MINOR_DETAILS = ("bundle", "fingerprint", "media", "receipt", "signers", "variants")


@click.command(cls=Command)
@click.option("--verify", is_flag=True, help="Say only whether the log is whole and unedited.")
@click.option("--custody", metavar="NAME", help="Print the chain-of-custody sheet of NAME.")
@click.option("--generation", type=int, help="With --custody, of this generation.")
@click.pass_obj
def log(screen: Screen, verify: bool, custody: str | None, generation: int | None) -> None:
    """Show the hash-chained record of what happened here; with -v, every detail of it.

    With --custody, a sheet to print and sign: what came on which media, who installed it, and
    how it was checked.
    """
    if custody is not None:
        found = find_generation(home(), custody, generation)
        sheet = sheet_of_generation(found)
        screen.result({"ok": True, "name": custody, "sheet": sheet}, sheet)
        return
    if generation is not None:
        raise UsageError("--generation is of --custody", hint="airpack log --custody NAME")
    with _advising():
        _show(screen, verify=verify)


def _show(screen: Screen, *, verify: bool) -> None:
    if verify:
        count = len(verify_history(home()))
        document: dict[str, object] = {"ok": True, "events": count}
        screen.result(document, f"ok: {count} events, each bound to the one before it, none cut")
        return
    events = read_events(home().log)
    screen.result(
        [{"time": e.time, "event": e.what, **e.details} for e in events],
        _event_table(events, screen.verbose) if events else "nothing has happened here yet",
    )


@contextmanager
def _advising() -> Iterator[None]:
    """Say what to do about a log that is not whole: not to go on from it as if it were."""
    try:
        yield
    except IntegrityError as error:
        raise IntegrityError(error.message, hint=error.hint or _NOT_WHOLE) from error


def _event_table(events: Sequence[Event], verbose: bool) -> str:
    return table([(e.time, e.what, _event_details(e, verbose)) for e in events])


def _event_details(event: Event, verbose: bool) -> str:
    """What matters of an event, as ``key value``, in the order in which one asks for it."""
    shown = [key for key in _DETAILS if key in event.details]
    shown += sorted(key for key in event.details if key not in _DETAILS)
    if not verbose:
        shown = [k for k in shown if k not in _MINOR_DETAILS and _says_something(event.details[k])]
    return "  ".join(f"{key.replace('_', ' ')} {_detail(event.details[key])}" for key in shown)


def _says_something(value: Json) -> bool:
    return value is not None and value is not False and value != []


def _detail(value: Json) -> str:
    if isinstance(value, list):
        return ",".join(_detail(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return one_line(str(value))
