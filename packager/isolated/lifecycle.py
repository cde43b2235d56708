"""Life after the install: pick a variant, test it again, go back, take it away, clean up."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from packager.errors import AirpackError, IntegrityError, UsageError
from packager.format.canonical import Json
from packager.format.receipt import RECEIPT_NAME
from packager.format.variant import Variant
from packager.isolated.adapters import engine_files
from packager.progress import Progress
from packager.runtime.smoke import SmokeResult, smoke_test
from packager.store.blobs import collect_garbage
from packager.store.digests import file_digest
from packager.store.generations import (
    Generation,
    Removal,
    check_number,
    current_number,
    find_generation,
    find_removals,
    finish_removals,
    installed_names,
    make_current,
    numbers_of,
    read_generation,
    remove,
    sweep_leftovers,
)
from packager.store.home import Home
from packager.store.journal import Event, append_event, verify_log
from packager.store.partials import remove_partials


@dataclass(frozen=True)
class InstalledVariant:
    """A variant on this host: what the index says of it, and the files the engine opens."""

    generation: Generation
    variant: Variant
    model: Path
    adapter: Path | None


def find_variant(home: Home, name: str, variant: str | None) -> InstalledVariant:
    """The named variant of the current generation, or its first that an engine runs.

    Raises ``UsageError`` where there is none.
    """
    generation = find_generation(home, name)
    installed = [v for v in generation.bundle.variants if v.name in generation.receipt.variants]
    names = ", ".join(v.name for v in installed)
    for candidate in installed:
        if candidate.name == variant or (variant is None and candidate.model is not None):
            files = engine_files(generation.bundle, candidate, generation.path)
            return InstalledVariant(generation, candidate, files.model, files.adapter)
    wanted = "variant that the engine opens" if variant is None else f"variant {variant!r}"
    brought = {v.name for v in generation.bundle.variants}
    hint = f"airpack install BUNDLE --variant {variant}" if variant in brought else None
    raise UsageError(f"{name} has no {wanted} installed; it has {names}", hint=hint)


def smoke(home: Home, name: str, variant: str | None, progress: Progress) -> SmokeResult:
    """Let an installed variant answer again, and compare."""
    found = find_variant(home, name, variant)
    if found.variant.golden is None:
        raise UsageError(f"{name} {found.variant.name}: no outputs were recorded at the build")
    return smoke_test(
        found.model,
        found.variant.golden,
        variant=found.variant.name,
        adapter=found.adapter,
        progress=progress,
    )


def roll_back(home: Home, name: str, to: int | None, *, now: datetime, operator: str) -> Generation:
    """Make an earlier generation current: ``to``, or the newest one before the current."""
    with home.changing():
        target = find_generation(home, name, to) if to is not None else _previous(home, name)
        details: dict[str, Json] = {
            "name": name,
            "generation": target.number,
            "operator": operator,
        }
        # In this order, so that nothing becomes current that the log does not know of.
        append_event(home.log, "rollback", details, now=now)
        make_current(home, name, target.number)
        return find_generation(home, name)


def _previous(home: Home, name: str) -> Generation:
    numbers = numbers_of(home, name)
    current = current_number(home, name) or numbers[-1] + 1
    earlier = [number for number in numbers if number < current]
    if not earlier:
        raise UsageError(
            f"{name}: there is no generation before {current}",
            hint="airpack list; then airpack rollback NAME --to GENERATION",
        )
    return find_generation(home, name, earlier[-1])


def check_removable(home: Home, name: str, number: int | None) -> None:
    """Raise ``UsageError`` where :func:`uninstall` would find nothing to do."""
    going = (n for removal in find_removals(home) if removal.name == name for n in removal.numbers)
    if not any(number in (None, n) for n in going):
        check_number(home, name, number)


def uninstall(
    home: Home, name: str, number: int | None, *, now: datetime, operator: str
) -> tuple[int, ...]:
    """Take away one generation of ``name``, or all, damaged or not; returns their numbers.

    One that was interrupted is brought to its end. Raises ``UsageError`` for the current one of
    several: roll back first. The store keeps the bytes until :func:`free_space`; with the model
    goes what an interrupted install has of it.
    """
    with home.changing():
        finished = finish_interrupted(home, now=now, operator=operator)
        done = tuple(n for removal in finished if removal.name == name for n in removal.numbers)
        if number in done:
            return (number,)
        if number is None and done and name not in installed_names(home):
            return done
        numbers = check_number(home, name, number)
        if number is not None and numbers != (number,) and number == current_number(home, name):
            raise UsageError(
                f"{name}: generation {number} is the current one",
                hint=f"airpack rollback {name}, then this again",
            )
        whole = number is None or numbers == (number,)
        record = partial(_record_removal, home, now, operator)
        removal = remove(home, name, None if whole else number, record)
        if whole:
            with suppress(AirpackError):  # the model has gone; gc frees what this could not
                remove_partials(home, name)
        return removal.numbers


def _record_removal(home: Home, now: datetime, operator: str, removal: Removal) -> None:
    details: dict[str, Json] = {
        "name": removal.name,
        "generations": list(removal.numbers),
        "operator": operator,
    }
    append_event(home.log, "uninstall", details, now=now)


def finish_interrupted(home: Home, *, now: datetime, operator: str) -> tuple[Removal, ...]:
    """Bring to its end what interrupted commands began; returns what they were taking away.

    The caller holds the home's lock.
    """
    sweep_leftovers(home)
    return finish_removals(home, partial(_record_removal, home, now, operator))


def free_space(home: Home, *, now: datetime, operator: str) -> int:
    """Remove what no generation holds, and what interrupted commands left; returns the bytes."""
    with home.changing():
        finish_interrupted(home, now=now, operator=operator)
        freed = collect_garbage(home) + remove_partials(home)
        append_event(home.log, "gc", {"freed": freed, "operator": operator}, now=now)
        return freed


def verify_history(home: Home) -> tuple[Event, ...]:
    """Every event of the log, which is whole, by its own chain and by what receipts saw of it.

    Raises ``IntegrityError`` where it was edited, reordered or cut, or a receipt was changed.
    """
    seen, receipts = {}, {}
    for name in installed_names(home):
        for number in numbers_of(home, name):
            generation = read_generation(home, name, number)
            seen[f"the receipt of {name} generation {number}"] = generation.receipt.log
            receipts[name, number] = file_digest(generation.path / RECEIPT_NAME).hex
    events = verify_log(home.log, seen)
    # Of a number that was given again, the last install counts.
    logged = {
        (event.details.get("name"), event.details.get("generation")): event.details.get("receipt")
        for event in events
        if event.what == "install"
    }
    for (name, number), digest in receipts.items():
        if logged.get((name, number)) != digest:
            raise IntegrityError(
                f"the receipt of {name} generation {number} is not the one that was logged"
            )
    return events
