"""What every command shares: its common flags, and being loaded only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import click
from click.shell_completion import CompletionItem

from packager import __version__
from packager.cli.screen import Screen
from packager.errors import UsageError

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
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ]


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"airpack {__version__}")
        ctx.exit()


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

    ``lazy`` maps a command's name to ``module:attribute`` and its line of help. So ``airpack
    verify`` never loads what only ``airpack build`` needs, and ``airpack --help`` loads neither.
    """

    command_class = Command

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("context_settings", _HELP)
        kwargs.setdefault("no_args_is_help", False)
        super().__init__(*args, **kwargs)
        self.params += _common_options()
        self._lazy = lazy or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments; none at all gets the help, on stderr since nothing was asked for."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

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
        module, attribute = self._lazy[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their lines of help, without importing them."""
        if not self._lazy:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and options that begin so, without importing any command."""
        if not self._lazy:
            return super().shell_complete(ctx, incomplete)
        names = [
            CompletionItem(name, help=line)
            for name, (_, line) in self._lazy.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)
