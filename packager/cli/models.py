"""The commands for what is installed: list, smoke, rollback, uninstall, gc, log."""

from __future__ import annotations

import json

import click

from packager.cli.command import Command
from packager.cli.hosts import home, now, operator
from packager.cli.screen import Screen
from packager.errors import SmokeTestError
from packager.format.sizes import format_size
from packager.isolated.lifecycle import free_space, roll_back
from packager.isolated.lifecycle import smoke as smoke_again
from packager.isolated.lifecycle import uninstall as take_away
from packager.runtime.smoke import SmokeResult
from packager.store.generations import Generation, generations, installed_names
from packager.store.journal import Event, read_events

name_argument = click.argument("name")
variant_option = click.option("--variant", help="Which variant; the first one, if not given.")


@click.command(cls=Command, name="list")
@click.pass_obj
def list_models(screen: Screen) -> None:
    """List the installed models and their generations."""
    place = home()
    found = [g for name in installed_names(place) for g in generations(place, name)]
    screen.result(
        [_generation_document(g) for g in found],
        "\n".join(_generation_line(g) for g in found) or "nothing is installed",
    )


@click.command(cls=Command)
@name_argument
@variant_option
@click.pass_obj
def smoke(screen: Screen, name: str, variant: str | None) -> None:
    """Let the model NAME answer again and compare with what was recorded at the build."""
    result = smoke_again(home(), name, variant, screen)
    if result.ok or screen.as_json:
        screen.result(smoke_document(result), smoke_line(result))
    if result.ok:
        return
    if screen.as_json:
        raise click.exceptions.Exit(SmokeTestError.exit_code)
    raise SmokeTestError(
        f"{name} {result.variant}: does not answer as it did at the build",
        hint=f"airpack rollback {name}, or install the bundle again",
    )


@click.command(cls=Command)
@name_argument
@click.option("--to", type=int, metavar="GENERATION", help="Which one; else the one before.")
@click.pass_obj
def rollback(screen: Screen, name: str, to: int | None) -> None:
    """Make an earlier generation of NAME current."""
    generation = roll_back(home(), name, to, now=now(), operator=operator())
    screen.result(
        {"ok": True, **_generation_document(generation)},
        f"current: {name} generation {generation.number} (version {generation.bundle.version})",
    )


@click.command(cls=Command)
@name_argument
@click.option("--generation", type=int, help="This generation alone; all of them, if not given.")
@click.pass_obj
def uninstall(screen: Screen, name: str, generation: int | None) -> None:
    """Take NAME away. `airpack gc` then frees its bytes."""
    what = f"generation {generation} of {name}" if generation else f"every generation of {name}"
    if screen.may_ask:
        screen.confirm(f"Take away {what}?")
    removed = take_away(home(), name, generation, now=now(), operator=operator())
    numbers = ", ".join(str(number) for number in removed)
    screen.result(
        {"ok": True, "name": name, "generations": list(removed)},
        f"taken away: {name}, generation {numbers}; airpack gc frees the space",
    )


@click.command(cls=Command)
@click.pass_obj
def gc(screen: Screen) -> None:
    """Remove what no generation holds."""
    freed = free_space(home(), now=now(), operator=operator())
    screen.result({"ok": True, "freed": freed}, f"freed: {format_size(freed)} ({freed} bytes)")


@click.command(cls=Command)
@click.option("--verify", is_flag=True, help="Say only whether the log is whole and unedited.")
@click.pass_obj
def log(screen: Screen, verify: bool) -> None:
    """Show the hash-chained record of what happened here."""
    events = read_events(home().log)
    if verify:
        document: dict[str, object] = {"ok": True, "events": len(events)}
        screen.result(document, f"ok: {len(events)} event(s), each follows the one before it")
        return
    screen.result(
        [{"time": e.time, "event": e.what, **e.details} for e in events],
        "\n".join(_event_line(event) for event in events) or "nothing has happened here yet",
    )


def smoke_document(result: SmokeResult) -> dict[str, object]:
    """The smoke test's result with the keys that scripts read."""
    return {
        "ok": result.ok,
        "variant": result.variant,
        "tokens_match": result.tokens_match,
        "expected": result.expected,
        "actual": result.actual,
        "perplexity": result.perplexity,
        "perplexity_expected": result.perplexity_expected,
        "tokens_per_second": result.tokens_per_second,
        "egress": {
            "namespace": result.egress.namespace,
            "attempts": list(result.egress.attempts),
        },
    }


def smoke_line(result: SmokeResult) -> str:
    """The smoke test's result in one line."""
    verdict = "passed" if result.ok else "FAILED"
    tokens = "same tokens" if result.tokens_match else "tokens within tolerance"
    place = "no network in reach" if result.egress.namespace else "network NOT cut off here"
    return (
        f"smoke test {verdict}: {result.variant}, {tokens if result.ok else 'other tokens'}, "
        f"perplexity {result.perplexity:.3f} (at the build {result.perplexity_expected:.3f}), "
        f"{result.tokens_per_second:.1f} tokens/s, {place}"
    )


def _generation_document(generation: Generation) -> dict[str, object]:
    return {
        "name": generation.name,
        "version": generation.bundle.version,
        "sequence": generation.bundle.sequence,
        "generation": generation.number,
        "current": generation.current,
        "variants": list(generation.receipt.variants),
        "path": str(generation.path),
        "size": generation.size,
    }


def _generation_line(generation: Generation) -> str:
    mark = "current" if generation.current else "       "
    return (
        f"{mark}  {generation.name}  generation {generation.number}  "
        f"version {generation.bundle.version} (sequence {generation.bundle.sequence})  "
        f"{', '.join(generation.receipt.variants)}  {format_size(generation.size)}  "
        f"installed {generation.receipt.installed}"
    )


def _event_line(event: Event) -> str:
    details = "  ".join(f"{key}={json.dumps(value)}" for key, value in event.details.items())
    return f"{event.time}  {event.what}  {details}"
