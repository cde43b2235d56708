"""One command at a time: every call that changes the home, killed or failed, and the aftermath."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aftermath import (
    Visible,
    differences,
    find_faults,
    find_partials,
    find_smoke_faults,
    read_tree,
    read_visible,
)
from commands import Done, run, run_traced, words_of
from scenes import Scene
from tracing import Call, Landed, read_calls, read_landing, trace_options

from packager.errors import AirpackError

# What is done to a call: strace's words for it, behind the name of the call.
FAULTS = {
    "kill": "signal=KILL",
    "EIO": "error=EIO",
    "ENOSPC": "error=ENOSPC",
    "EIO on": "error=EIO",  # this call, and every later one of its name
}
_TRIES = 3  # threads do not always come in the same order


@dataclass(frozen=True)
class Known:
    """What a scene's command does when nothing disturbs it.

    ``once`` and ``twice`` are the trees after it ran so often and ``gc`` behind it; after
    ``twice`` it may have been refused, since nothing was left to do.
    """

    scene: Scene
    calls: tuple[Call, ...]
    before: Visible
    after: Visible
    damaged: frozenset[str]
    once: dict[str, str]
    twice: dict[str, str]
    again: int  # the exit code of the command that has nothing left to do


@dataclass(frozen=True)
class Case:
    """A fault in one call of a scene's command."""

    title: str
    call: Call
    fault: str


@dataclass(frozen=True)
class Outcome:
    """What became of a case: what was wrong, and the command line that does it again."""

    case: Case
    ended: int
    faults: tuple[str, ...]
    command: str


def learn(scene: Scene, place: Path) -> Known:
    """Run the scene's command undisturbed, watched, and see what it makes of the home."""
    damaged = find_faults(_copy(scene.home, place / "looked at"))
    home = _copy(scene.home, place / "once")
    before = read_visible(home)
    done = run_traced(home, scene.command, trace_options(place / "calls"))
    if done.code:
        raise RuntimeError(f"{scene.command} ended with {done.code}: {done.text}")
    calls = tuple(read_calls(place / "calls", home))
    after = read_visible(home)
    twice = _copy(home, place / "twice")
    again = run(twice, scene.command)
    for root in (home, twice):
        run(root, ["gc"])
    return Known(
        scene, calls, before, after, damaged, read_tree(home), read_tree(twice), again.code
    )


def _copy(home: Path, place: Path) -> Path:
    """A copy of the home, hard links and all, in place of whatever was there."""
    if place.exists():
        shutil.rmtree(place)
    if home.exists():
        subprocess.run(["cp", "-a", home, place], check=True)
    return place


def try_case(known: Known, case: Case, place: Path, *, smoke: bool) -> Outcome:
    """Disturb the command at that call in a copy of the home, and look; then run it again."""
    home = place / "home"
    faults = ["the call was never reached"]
    for aim in [*range(len(case.call.aims(home)))] * _TRIES:
        _copy(known.scene.home, home)
        done, landed = _disturb(known.scene, case, _inject(case, home, aim), home, place)
        if landed.on(case.call):
            faults = list(_look(known, case, done, home, smoke))
            break
    return Outcome(case, done.code, tuple(faults), _reproduce(known.scene, case, aim))


def _look(known: Known, case: Case, done: Done, home: Path, smoke: bool) -> Iterator[str]:
    """Everything that is wrong behind the fault, and when the command has run again."""
    try:
        yield from _after_fault(known, case, done, home, smoke)
        yield from after_again(known, home)
    except AirpackError as error:
        yield f"the home cannot be read: {error.message}"


def _inject(case: Case, home: Path, aim: int) -> list[str]:
    """strace's options for the case in ``home``, by that one of the call's ``aims``."""
    when, only = case.call.aims(home)[aim]
    more = "+" if case.fault.endswith(" on") else ""
    return ["-e", f"inject={case.call.name}:{FAULTS[case.fault]}:{when}{more}", *only]


def _disturb(
    scene: Scene, case: Case, inject: Sequence[str], home: Path, place: Path
) -> tuple[Done, Landed]:
    record = place / "record" / "calls"
    shutil.rmtree(record.parent, ignore_errors=True)
    record.parent.mkdir(parents=True)
    options = [*trace_options(record, [case.call.name]), *inject]
    if case.fault != "kill":
        options.append("--seccomp-bpf")  # several times as fast, but no signals: strace 6.1
    done = run_traced(home, scene.command, options)
    return done, read_landing(record, home)


def _reproduce(scene: Scene, case: Case, aim: int) -> str:
    """A shell's line that does the case once more, beside the scene's home."""
    home = scene.home.with_name("again")
    words = ["strace", "-f", "-o", "/dev/null", *_inject(case, home, aim), *words_of(scene.command)]
    prepared = [["rm", "-rf", home]]
    if scene.home.exists():
        prepared.append(["cp", "-a", scene.home, home])
    settings = f"PYTHONHASHSEED=0 AIRPACK_HOME={shlex.quote(str(home))}"
    before = " && ".join(shlex.join(map(str, line)) for line in prepared)
    return f"{before} && {settings} {shlex.join(words)}"


def _after_fault(known: Known, case: Case, done: Done, home: Path, smoke: bool) -> Iterator[str]:
    """What is wrong behind the fault, before anything else is run."""
    if not (case.fault == "EIO on" and case.call.name == "write"):  # then nobody can say a word
        yield from done.faults()
    seen = read_visible(home)
    if case.fault == "kill" and done.code != -9 and done.code != 137:
        yield f"it was not killed, but ended with {done.code}"
    allowed = [known.before, known.after]
    if case.fault in ("EIO", "ENOSPC"):
        allowed = [known.before if done.code else known.after]
    if seen not in allowed:
        yield f"exit code {done.code}; now: {seen}; wanted: {' or '.join(map(str, allowed))}"
    yield from find_new_faults(known, home)
    if smoke and not known.damaged:
        yield from find_smoke_faults(home)


def find_new_faults(known: Known, home: Path) -> list[str]:
    """What is wrong with the home that was not before the command."""
    return sorted(find_faults(home) - known.damaged)


def after_again(known: Known, home: Path) -> Iterator[str]:
    """What is wrong when the same command is run again, and ``gc`` behind it."""
    had_effect = read_visible(home) == known.after != known.before
    again = run(home, known.scene.command)
    yield from (f"again: {fault}" for fault in again.faults())
    if again.code and not (had_effect and again.code == known.again):
        yield f"again: exit code {again.code}: {again.text.strip()}"
    if not again.code:
        yield from (f"again: {fault}" for fault in find_partials(home))
    collected = run(home, ["gc"])
    if collected.code:
        yield f"gc: exit code {collected.code}: {collected.text.strip()}"
    yield from (f"at last: {fault}" for fault in sorted(find_faults(home)))
    tree = read_tree(home)
    if tree not in (known.once, known.twice):
        yield from differences(tree, known.once)


def cases_of(known: Known, faults: Sequence[str], every: int) -> list[Case]:
    """Every ``every``-th call with each fault; which ones differs from fault to fault."""
    return [
        Case(known.scene.title, call, fault)
        for shift, fault in enumerate(faults)
        for number, call in enumerate(known.calls)
        if (number + shift) % every == 0
    ]
