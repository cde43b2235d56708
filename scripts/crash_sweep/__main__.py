"""Kill and fail airpack's commands at every system call that changes a file, and look.

    python scripts/crash_sweep [--every K] [--commands 'TITLE; ...'] [--jobs N] [--json]
    python scripts/crash_sweep --full-disk [--commands 'TITLE; ...'] [--json]

Needs strace; --full-disk a kernel that gives namespaces. For every command, call and fault: a copy
of a home is changed by the command, which is killed there, or whose call fails. Then the home must
be as before or as after the command, by list, log and scrub; the command, run again, must succeed;
and gc must leave nothing over. Exit code 1 where anything was otherwise; each failure comes with a
line that does it once more, and what that needs is kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from full_disk import enter_namespace, sweep_full_disk
from scenes import SCENES, Stage
from sweep import FAULTS, Case, Known, Outcome, cases_of, learn, try_case

import packager.cli.install
import packager.cli.main
import packager.cli.models
import packager.cli.scrub
import packager.cli.trust  # noqa: F401  # so that forks need not

_SMOKE_EVERY = 50


def main() -> int:
    """Sweep what the command line asks for; returns the exit code."""
    asked = _parse(sys.argv[1:])
    if asked.full_disk:
        enter_namespace()
    place = Path(tempfile.mkdtemp(prefix="crash-sweep-"))
    failed = True
    try:
        sweep = _sweep_full_disk if asked.full_disk else _sweep
        stage = Stage(place)
        rows = [sweep(stage, title, asked, place) for title in asked.commands]
        failed = any(row["failures"] for row in rows)
    finally:
        if failed:
            _say(f"kept, for the commands above: {place}")
        else:
            shutil.rmtree(place)
    if asked.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 1 if failed else 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="crash_sweep", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--every", type=int, default=1, metavar="K", help="only each K-th call or disk"
    )
    parser.add_argument(
        "--commands",
        type=lambda text: text.split("; "),
        default=[title for title in SCENES if title != "install, tested"],
        help=f"which, with '; ' between: {'; '.join(SCENES)}",
    )
    parser.add_argument("--faults", type=lambda text: text.split(","), default=[*FAULTS])
    parser.add_argument("--full-disk", action="store_true", help="real full disks, not faults")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    asked = parser.parse_args(words)
    if unknown := {*asked.commands} - {*SCENES} | {*asked.faults} - {*FAULTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return asked


_known: Known
_place: Path


def _start(known: Known, place: Path) -> None:
    global _known, _place
    _known = known
    _place = Path(tempfile.mkdtemp(dir=place))


def _try(numbered: tuple[int, Case]) -> Outcome:
    """Try one case; in some, whose number counts down, the model must answer too."""
    number, case = numbered
    return try_case(_known, case, _place, smoke=number % _SMOKE_EVERY == 0)


def _sweep(stage: Stage, title: str, asked: argparse.Namespace, place: Path) -> dict[str, object]:
    """Sweep one command; returns its row of the table."""
    begun = time.monotonic()
    work = Path(tempfile.mkdtemp(dir=place))
    known = learn(stage.set(title), work)
    cases = cases_of(known, asked.faults, asked.every)
    _say(f"{title}: {len(known.calls)} calls change the home, {len(cases)} cases")
    bad = []
    numbered = zip(reversed(range(len(cases))), cases, strict=True)
    with multiprocessing.Pool(asked.jobs, _start, (known, work)) as pool:
        for count, outcome in enumerate(pool.imap_unordered(_try, numbered), 1):
            if outcome.faults:
                bad.append(_describe(outcome))
                _say(bad[-1])
            if count % 50 == 0:
                _say(f"{title}: {count} of {len(cases)}, {len(bad)} failures")
    shutil.rmtree(work, ignore_errors=True)
    counts = Counter(case.fault for case in cases)
    return {
        "command": title,
        "calls": len(known.calls),
        **{fault: counts[fault] for fault in FAULTS},
        "failures": len(bad),
        "seconds": round(time.monotonic() - begun),
    }


def _sweep_full_disk(
    stage: Stage, title: str, asked: argparse.Namespace, place: Path
) -> dict[str, object]:
    """Run one command on full disks; returns its row of the table."""
    begun = time.monotonic()
    work = Path(tempfile.mkdtemp(dir=place))
    by_bytes, by_inodes, bad = sweep_full_disk(stage.set(title), work, asked.every)
    for words in bad:
        _say(words)
    _say(f"{title}: {by_bytes + by_inodes} full disks, {len(bad)} failures")
    return {
        "command": title,
        "of bytes": by_bytes,
        "of inodes": by_inodes,
        "failures": len(bad),
        "seconds": round(time.monotonic() - begun),
    }


def _describe(outcome: Outcome) -> str:
    case = outcome.case
    head = f"FAILED: {case.title}: {case.fault}: {case.call.name} {case.call.place}"
    return "\n".join(
        [head, *(f"    {fault}" for fault in outcome.faults), f"  $ {outcome.command}"]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_table(rows: Sequence[dict[str, object]]) -> None:
    heads = [*rows[0]]
    totals = {h: sum(int(str(r[h])) for r in rows) for h in heads if h != "command"}
    for row in [dict(zip(heads, heads, strict=True)), *rows, {"command": "all", **totals}]:
        cells = [f"{row[head]!s:>9}" for head in heads[1:]]
        print(f"{row['command']:<24}", *cells)


if __name__ == "__main__":
    sys.exit(main())
