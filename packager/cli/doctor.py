"""``airpack doctor``: the host, whether a bundle fits it, and what stands in the way."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, home, now, pub_option, reckoned
from packager.cli.media import open_all_media
from packager.cli.screen import Screen
from packager.cli.text import table
from packager.errors import AirpackError, EngineError, NoSpaceError, TargetMismatchError
from packager.isolated.doctor import Finding, examine_host
from packager.isolated.install import choose_variants
from packager.isolated.preflight import examine_fit, judge_space
from packager.isolated.verify import authenticate


@click.command(cls=Command)
@click.argument("bundles", nargs=-1, type=directory_argument, metavar="[BUNDLE...]")
@pub_option
@click.option("--variant", help="Look at this variant of BUNDLE alone.")
@click.pass_obj
def doctor(
    screen: Screen, bundles: tuple[Path, ...], keys: tuple[Path, ...], variant: str | None
) -> None:
    """Look at this host: what was found, what is needed, and what to do.

    With BUNDLE, whether it fits: system, CPU, memory, space, clock. Exit code 14 if this host
    cannot run it, 13 if only the space is too small. Nothing is written.
    """
    space: tuple[Finding, ...] = ()
    if bundles:
        fit, space = _examine_bundle(screen, bundles, keys, variant)
        findings = [*fit, *space]
    else:
        findings = [*examine_host(home()), *_kernels()]
    document: dict[str, object] = {
        "ok": all(finding.ok for finding in findings),
        "checks": [vars(finding) for finding in findings],
    }
    text = table([_row(finding) for finding in findings])
    notes = [f"{f.what}: {f.hint}" for f in findings if f.ok and f.hint]
    error = _refusal([f for f in findings if not f.ok], space)
    if error is not None:
        screen.failure(document, text, error)
    screen.result(document, text)
    for note in notes:
        screen.note(note)


def _examine_bundle(
    screen: Screen, bundles: Sequence[Path], keys: Sequence[Path], name: str | None
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """What the variants need and find here, and the space they take."""
    media, ring = open_all_media(screen, bundles, keys)
    bundle = authenticate(media, ring, now=reckoned()).bundle
    variants = choose_variants(bundle, name)
    fit = examine_fit(bundle, variants, home(), now=now())
    return fit, (judge_space(bundle, variants, home()),)


def _refusal(faults: Sequence[Finding], space: Sequence[Finding]) -> AirpackError | None:
    if not faults:
        return None
    what = ", ".join(fault.what for fault in faults)
    hint = next((fault.hint for fault in faults if fault.hint), None)
    if all(fault in space for fault in faults):
        return NoSpaceError(f"{faults[0].found}, {faults[0].needed} needed", hint=hint)
    return TargetMismatchError(f"this host cannot run models: {what}", hint=hint)


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
    verdict = "NOT" if not finding.ok else "note" if finding.hint else "ok"
    needs = f"; needs {finding.needed}" if finding.needed else ""
    return (verdict, finding.what, f"{finding.found}{needs}")
