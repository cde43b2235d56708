"""The commands for what is installed: list, smoke, rollback, uninstall, gc."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click

from packager.cli.command import Command
from packager.cli.hosts import home, now, operator
from packager.cli.screen import Screen
from packager.cli.text import table
from packager.errors import IntegrityError, SmokeTestError
from packager.format.sizes import format_size
from packager.isolated.lifecycle import check_removable, free_space, roll_back
from packager.isolated.lifecycle import smoke as smoke_again
from packager.isolated.lifecycle import uninstall as take_away
from packager.runtime.engine import network_use
from packager.runtime.smoke import SmokeResult
from packager.store.generations import (
    Generation,
    installed_names,
    numbers_of,
    read_generation,
)

name_argument = click.argument("name")
variant_option = click.option("--variant", help="Which variant; the first one, if not given.")


@click.command(cls=Command, name="list")
@click.pass_obj
def list_models(screen: Screen) -> None:
    """List the installed models and their generations."""
    place = home()
    found, damaged = [], []
    for name in installed_names(place):
        for number in numbers_of(place, name):
            try:
                found.append(read_generation(place, name, number))
            except IntegrityError as error:
                damaged.append(error)
    for fault in damaged:
        screen.warn(f"{fault.message}; {fault.hint}")
    nothing = "nothing else is installed" if damaged else "nothing is installed"
    screen.result(
        [_generation_document(g) for g in found], _generation_table(found) if found else nothing
    )
    for generation in found:
        screen.detail(f"{generation.name} generation {generation.number}: {generation.path}")


@click.command(cls=Command)
@name_argument
@variant_option
@click.pass_obj
def smoke(screen: Screen, name: str, variant: str | None) -> None:
    """Test that the model NAME answers as it did at the build."""
    result = smoke_again(home(), name, variant, screen)
    document, line = smoke_document(result), smoke_line(result)
    if result.ok:
        screen.result(document, line)
        return
    error = (
        network_use(result.egress.attempts)
        if result.egress.attempts
        else SmokeTestError(
            f"{name} {result.variant}: does not answer as it did at the build",
            hint=f"airpack scrub {name} says whether the disk has damaged it, and how to mend it; "
            f"else airpack rollback {name}, or install the bundle again",
        )
    )
    screen.failure(document, line, error)


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
    """Take NAME away. `airpack gc` then frees its bytes.

    Asks first, on a terminal.
    """
    place = home()
    check_removable(place, name, generation)
    every = f"every generation of {name}"
    what = every if generation is None else f"generation {generation} of {name}"
    screen.confirm(f"Take away {what}?")
    removed = take_away(place, name, generation, now=now(), operator=operator())
    numbers = ", ".join(str(number) for number in removed)
    screen.result(
        {"ok": True, "name": name, "generations": list(removed)},
        f"taken away: {name}, generation {numbers}; to free its space: airpack gc",
    )


@click.command(cls=Command)
@click.pass_obj
def gc(screen: Screen) -> None:
    """Remove what no generation holds and what unfinished installs left; print the bytes freed."""
    freed = free_space(home(), now=now(), operator=operator())
    readable = f" ({format_size(freed)})" if freed else ""
    screen.result({"ok": True, "freed": freed}, f"freed: {freed} bytes{readable}")


def smoke_document(result: SmokeResult) -> dict[str, object]:
    """The smoke test's result with the keys that scripts read, and that of vectors."""
    vectors = {} if result.cosine is None else {"cosine": result.cosine}
    return {
        "ok": result.ok,
        "variant": result.variant,
        "tokens_match": result.tokens_match,
        "expected": result.expected,
        "actual": result.actual,
        "perplexity": _finite(result.perplexity),
        "perplexity_expected": _finite(result.perplexity_expected),
        "tokens_per_second": result.tokens_per_second,
        "egress": {
            "namespace": result.egress.namespace,
            "attempts": list(result.egress.attempts),
        },
        **vectors,
    }


def smoke_line(result: SmokeResult) -> str:
    """The smoke test's result in one line."""
    verdict = "passed" if result.ok else "FAILED"
    others = "other tokens, within tolerance" if result.ok else "other tokens"
    tokens = "same tokens" if result.tokens_match else others
    place = "no network in reach" if result.egress.namespace else "network NOT cut off here"
    return (
        f"smoke test {verdict}: {result.variant}, {tokens}, {_likeness(result)}, "
        f"{result.tokens_per_second:.1f} tokens/s, {place}"
    )


def _likeness(result: SmokeResult) -> str:
    if result.cosine is not None:
        return f"cosine {result.cosine:.6f} with the build's vectors"
    return f"perplexity {result.perplexity:.3f} (at the build {result.perplexity_expected:.3f})"


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


def _finite(value: float | None) -> float | None:
    """``value``, or ``None`` where it is NaN or infinite, which JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None


def _generation_table(found: Sequence[Generation]) -> str:
    heading = ("NAME", "VERSION", "SEQUENCE", "GENERATION", "SIZE", "INSTALLED", "VARIANTS")
    return table([heading, *(_generation_row(generation) for generation in found)])


def _generation_row(generation: Generation) -> tuple[str, ...]:
    return (
        generation.name,
        generation.bundle.version,
        str(generation.bundle.sequence),
        f"{generation.number} current" if generation.current else str(generation.number),
        format_size(generation.size),
        generation.receipt.installed,
        ", ".join(generation.receipt.variants),
    )
