"""What every command shares: its common flags, and being loaded only when it is called."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from typing import Any

import click

from packager.cli.screen import Screen

_HELP = {"help_option_names": ["-h", "--help"]}


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Give the result as JSON."),
        click.Option(
            ["--progress", "progress_json"],
            type=click.Choice(["bar", "json"]),
            help="How to show progress on stderr: bars on a terminal (default), or JSON lines.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="Say only results and errors."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Say more."),
        click.Option(["--no-input"], is_flag=True, help="Never ask; fail where one would have to."),
        click.Option(["--yes"], is_flag=True, help="Answer yes to every question."),
    ]


def _take_screen(ctx: click.Context) -> Screen:
    """The screen as flags before the command, and now behind it, have it."""
    screen = ctx.obj if isinstance(ctx.obj, Screen) else Screen()
    given = {field.name: ctx.params.pop(field.name) for field in fields(Screen)}
    given["progress_json"] = given["progress_json"] == "json"
    return replace(screen, **{name: True for name, value in given.items() if value})


class Command(click.Command):
    """A command whose callback gets the :class:`Screen` first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", _HELP)
        super().__init__(*args, **kwargs)
        self.params += _common_options()

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = _take_screen(ctx)
        ctx.find_root().meta["airpack.screen"] = ctx.obj
        return super().invoke(ctx)


class Group(click.Group):
    """A group whose commands live in modules that are imported when one of them is called.

    ``lazy`` maps a command's name to ``module:attribute``. So ``airpack verify`` never loads what
    only ``airpack build`` needs.
    """

    command_class = Command

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", _HELP)
        super().__init__(*args, **kwargs)
        self.params += _common_options()
        self._lazy = lazy or {}

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = _take_screen(ctx)
        ctx.find_root().meta["airpack.screen"] = ctx.obj
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order they are declared: that of the trip."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now if it has to be."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute = self._lazy[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command
