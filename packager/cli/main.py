"""``airpack``: the group of all commands, and the one place where errors end."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from packager import __version__
from packager.cli.command import Group
from packager.cli.screen import Screen
from packager.errors import AirpackError, UsageError
from packager.store.atomic import translate

_CANCELLED = 130

_COMMANDS = {
    "init": "packager.cli.recipes:init",
    "lock": "packager.cli.recipes:lock",
    "build": "packager.cli.build:build",
    "keys": "packager.cli.keys:keys",
    "sign": "packager.cli.keys:sign",
    "inspect": "packager.cli.bundle:inspect",
    "verify": "packager.cli.bundle:verify",
    "trust": "packager.cli.trust:trust",
    "install": "packager.cli.install:install",
    "list": "packager.cli.models:list_models",
    "smoke": "packager.cli.models:smoke",
    "run": "packager.cli.use:run",
    "serve": "packager.cli.use:serve",
    "rollback": "packager.cli.models:rollback",
    "uninstall": "packager.cli.models:uninstall",
    "gc": "packager.cli.models:gc",
    "log": "packager.cli.models:log",
    "demo": "packager.cli.demo:demo",
    "completion": "packager.cli.completion:completion",
}


@click.group(cls=Group, lazy=_COMMANDS)
@click.version_option(__version__, message="airpack %(version)s")
def airpack() -> None:
    """Carry open AI models across an air gap.

    On a connected host: init, lock, build. On the isolated host: trust add, install, run.
    `airpack demo` shows the whole trip.
    """


def main() -> NoReturn:
    """Run the command line; every error ends here, as `error:` and `try:` and an exit code."""
    context: list[click.Context] = []
    if "_AIRPACK_COMPLETE" in os.environ:
        airpack.main(prog_name="airpack")
    try:
        code = _run(context)
    except AirpackError as error:
        _screen(context).error(error)
        code = error.exit_code
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = UsageError.exit_code
    except click.ClickException as error:
        code = _usage(error, _screen(context))
    except (KeyboardInterrupt, click.Abort):
        click.echo("cancelled", err=True)
        code = _CANCELLED
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        refusal = translate(error)
        _screen(context).error(refusal)
        code = refusal.exit_code
    sys.exit(code)


def _run(context: list[click.Context]) -> int:
    with airpack.make_context("airpack", sys.argv[1:]) as ctx:
        context.append(ctx)
        airpack.invoke(ctx)
    return 0


def _screen(context: list[click.Context]) -> Screen:
    screen = context[0].meta.get("airpack.screen") if context else None
    return screen if isinstance(screen, Screen) else Screen(as_json="--json" in sys.argv)


def _usage(error: click.ClickException, screen: Screen) -> int:
    path = (
        error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "airpack"
    )
    screen.error(UsageError(error.format_message(), hint=f"{path} --help"))
    return UsageError.exit_code
