"""``airpack completion``: what a shell evaluates to complete airpack's commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from packager.cli.command import Command
from packager.cli.screen import Screen
from packager.errors import UsageError


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(screen: Screen, shell: str) -> None:
    """Print a shell's completion script.

    \b
    bash: eval "$(airpack completion bash)"
    zsh:  eval "$(airpack completion zsh)"
    fish: airpack completion fish | source
    """
    maker = get_completion_class(shell)
    if maker is None:
        raise UsageError(f"no completion is known for {shell}")
    root = click.get_current_context().find_root().command
    source = maker(root, {}, "airpack", "_AIRPACK_COMPLETE").source()
    screen.result({"ok": True, "shell": shell, "script": source}, source)
