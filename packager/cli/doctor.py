"""``airpack doctor``: the host, and what stands in the way."""

from __future__ import annotations

import importlib.util

import click

from packager.cli.command import Command
from packager.cli.hosts import home
from packager.cli.screen import Screen
from packager.cli.text import table
from packager.errors import EngineError, TargetMismatchError
from packager.isolated.doctor import Finding, examine_host


@click.command(cls=Command)
@click.pass_obj
def doctor(screen: Screen) -> None:
    """Look at this host: what was found, what is needed, and what to do. Exit code 14 if it
    cannot run models."""
    findings = (*examine_host(home()), *_kernels())
    faults = [finding for finding in findings if not finding.ok]
    document: dict[str, object] = {
        "ok": not faults,
        "checks": [vars(finding) for finding in findings],
    }
    text = table([_row(finding) for finding in findings])
    if faults:
        what = ", ".join(fault.what for fault in faults)
        hint = next((fault.hint for fault in faults if fault.hint), None)
        error = TargetMismatchError(f"this host cannot run models: {what}", hint=hint)
        screen.failure(document, text, error)
    screen.result(document, text)


def _kernels() -> tuple[Finding, ...]:
    """Which quantization kernels a build would use, where this host can build at all."""
    if not all(importlib.util.find_spec(name) for name in ("numpy", "xllamacpp")):
        return ()
    from packager.quantize.kernels import load_kernels

    try:
        found = load_kernels().compiled.summary
    except EngineError as error:
        found = f"none: {error.message}"
    return (Finding("kernels", found),)


def _row(finding: Finding) -> tuple[str, ...]:
    needs = "" if finding.ok else f"; needs {finding.needed}"
    return ("ok" if finding.ok else "NOT", finding.what, f"{finding.found}{needs}")
