"""``airpack install``: from media to a model that answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import BundlePlace, home, now, operator, pub_option, warn_of_clock
from packager.cli.media import opened_media
from packager.cli.models import smoke_document, smoke_line
from packager.cli.screen import Screen
from packager.isolated.install import install as install_bundle
from packager.isolated.request import Installation, InstallRequest
from packager.runtime.smoke import SmokeResult
from packager.store.generations import Generation, find_generation


@click.command(cls=Command)
@click.argument(
    "bundles", nargs=-1, required=True, type=BundlePlace(), metavar="BUNDLE... [PATCH...]"
)
@pub_option
@click.option("--variant", help="Install this variant alone (all of them, if not given).")
@click.option("--no-smoke", is_flag=True, help="Do not let the model answer first. It is logged.")
@click.option("--allow-downgrade", is_flag=True, help="Accept a lower sequence. It is logged.")
@click.option("--force", is_flag=True, help="Install what this host does not fit. It is logged.")
@click.pass_obj
def install(
    screen: Screen,
    bundles: tuple[Path | str, ...],
    keys: tuple[Path, ...],
    variant: str | None,
    no_smoke: bool,
    allow_downgrade: bool,
    force: bool,
) -> None:
    """Verify, test and install BUNDLE.

    Nothing is written before the signature holds, and the new generation becomes current only
    once its model has answered as at the build. Name every medium of the bundle, and what came
    back for a repair ticket; or the http:// address of the bundle's directory, where a server in
    the enclave has it.
    """
    place = home()
    warn_of_clock(screen)
    with opened_media(screen, bundles, keys) as (media, patches, ring):
        request = InstallRequest(
            media=media,
            home=place,
            keyring=ring,
            variant=variant,
            smoke=not no_smoke,
            allow_downgrade=allow_downgrade,
            operator=operator(),
            now=now(),
            patches=patches,
            force=force,
        )
        done = install_bundle(request, screen)
    generation = find_generation(place, done.receipt.name, done.receipt.generation)
    screen.result(_document(done), _text(done, generation))


def _document(done: Installation) -> dict[str, object]:
    receipt = done.receipt
    return {
        "ok": True,
        "name": receipt.name,
        "version": receipt.version,
        "sequence": receipt.sequence,
        "generation": receipt.generation,
        "variants": list(receipt.variants),
        "path": str(done.path),
        "smoke": _smoke_document(done.smoke),
        "receipt": str(done.path / "receipt.json"),
    }


def _smoke_document(results: Sequence[SmokeResult]) -> dict[str, object]:
    """As ``airpack smoke`` has it, of all variants together; each by itself in ``variants``."""
    if not results:
        return {}
    return {
        **smoke_document(results[0]),
        "ok": all(result.ok for result in results),
        "tokens_match": all(result.tokens_match for result in results),
        "variants": {result.variant: smoke_document(result) for result in results},
    }


def _text(done: Installation, generation: Generation) -> str:
    receipt = done.receipt
    lines = [
        f"installed: {receipt.name} {receipt.version}, generation {receipt.generation}",
        f"signed by: {', '.join(receipt.signers)}",
        *(smoke_line(result) for result in done.smoke),
        f"receipt: {done.path / 'receipt.json'}",
    ]
    if any(v.model and v.name in receipt.variants for v in generation.bundle.variants):
        lines.append(f'ask it: airpack run {receipt.name} "your question"')
    return "\n".join(lines)
