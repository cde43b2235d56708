"""``airpack ps``: which models run now."""

from __future__ import annotations

from datetime import timedelta

import click

from packager.cli.command import Command
from packager.cli.hosts import home
from packager.cli.screen import Screen
from packager.cli.text import table
from packager.format.sizes import format_size
from packager.isolated.running import RunningModel, running_models


@click.command(cls=Command)
@click.pass_obj
def ps(screen: Screen) -> None:
    """List the models that run now, and where they answer."""
    found = running_models(home())
    heading = ("NAME", "GENERATION", "VARIANT", "COMMAND", "PORT", "MEMORY", "SINCE", "PID")
    screen.result(
        [vars(model) for model in found],
        table([heading, *map(_row, found)]) if found else "no model runs now",
    )


def _row(model: RunningModel) -> tuple[str, ...]:
    return (
        model.name,
        str(model.generation),
        model.variant,
        model.command,
        str(model.port or "-"),
        format_size(model.memory),
        str(timedelta(seconds=model.seconds)),
        str(model.pid),
    )
