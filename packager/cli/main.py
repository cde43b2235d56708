"""``airpack``: the group of all commands, and the one place where errors end."""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import click

from packager.cli.command import Group
from packager.cli.screen import Screen
from packager.errors import AirpackError, HostError, UsageError
from packager.store.atomic import translate

_CANCELLED = 130

_COMMANDS = {
    "init": ("packager.cli.recipes:init", "Write a first recipe for a model."),
    "lock": ("packager.cli.recipes:lock", "Pin the commit and every file of a recipe."),
    "build": ("packager.cli.build:build", "Build the bundle that a recipe describes."),
    "keys": ("packager.cli.keys:keys", "Make and show signing keys."),
    "sign": ("packager.cli.keys:sign", "Add a signature to a bundle."),
    "inspect": ("packager.cli.bundle:inspect", "Say what a bundle claims to be."),
    "verify": ("packager.cli.bundle:verify", "Check a bundle: signature and every byte."),
    "repair": ("packager.cli.bundle:repair", "Make whole what is damaged, from what is good."),
    "report": ("packager.cli.report:report", "Write a page about a bundle, for people."),
    "diff": ("packager.cli.delta:diff", "Show what a delta from A to B would carry."),
    "copy": ("packager.cli.copy:copy", "Copy a bundle to one medium or several."),
    "trust": ("packager.cli.trust:trust", "Say whose signatures this host accepts."),
    "install": ("packager.cli.install:install", "Verify, test and install a bundle."),
    "list": ("packager.cli.models:list_models", "List the installed models."),
    "smoke": ("packager.cli.models:smoke", "Test that a model answers as at the build."),
    "run": ("packager.cli.use:run", "Ask a model, or talk with it."),
    "serve": ("packager.cli.use:serve", "Answer OpenAI-style HTTP requests."),
    "ps": ("packager.cli.ps:ps", "List the models that run now."),
    "rollback": ("packager.cli.models:rollback", "Go back to an earlier generation."),
    "uninstall": ("packager.cli.models:uninstall", "Take a model away."),
    "gc": ("packager.cli.models:gc", "Free the space that no generation needs."),
    "scrub": ("packager.cli.scrub:scrub", "Read every installed byte again; mend it."),
    "inventory": ("packager.cli.delta:inventory", "Write what this host holds, for a delta."),
    "doctor": ("packager.cli.doctor:doctor", "Say whether this host can run models."),
    "log": ("packager.cli.log:log", "Show what happened on this host."),
    "demo": ("packager.cli.demo:demo", "Make the whole trip on a small model."),
    "completion": ("packager.cli.completion:completion", "Print a shell's completion script."),
}


@click.group(cls=Group, lazy=_COMMANDS)
def airpack() -> None:
    """Carry open AI models across an air gap.

    On a connected host: init, lock, build. On the isolated host: trust add, install, run.
    `airpack demo` shows the whole trip.
    """


def main() -> NoReturn:
    """Run the command line; every error ends here, as `error:` and `try:` and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that this terminal's encoding lacks is shown escaped, not refused.
            stream.reconfigure(errors="backslashreplace")
    context: list[click.Context] = []
    try:
        try:
            code = _run(context)
        except (KeyboardInterrupt, click.Abort):
            _screen(context).cancelled(_CANCELLED)
            code = _CANCELLED
        except Exception as error:  # noqa: BLE001  # the one boundary
            code = _report(error, context)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone
        _fall_silent()
        code = 1
    except OSError:  # it was reported, and what is left of the output would fail again
        _fall_silent()
    sys.exit(code)


def _fall_silent() -> None:
    """Say nothing more, not even when Python flushes its streams at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _run(context: list[click.Context]) -> int:
    if os.environ.get("_AIRPACK_COMPLETE"):
        with suppress(ModuleNotFoundError):  # a shell that completes wants no error
            airpack.main(prog_name="airpack")
        return 0
    try:
        with airpack.make_context("airpack", sys.argv[1:]) as ctx:
            context.append(ctx)
            airpack.invoke(ctx)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    return 0


def _report(error: Exception, context: list[click.Context]) -> int:
    """Say what was wrong; returns the exit code. A reader that has gone is passed on."""
    if isinstance(error, BrokenPipeError):
        raise error
    screen = _screen(context)
    refusal = _as_refusal(error)
    screen.error(refusal)
    if screen.verbose and not isinstance(error, (AirpackError, click.ClickException)):
        traceback.print_exception(type(error), error, error.__traceback__)
    return refusal.exit_code


def _as_refusal(error: Exception) -> AirpackError:
    if isinstance(error, AirpackError):
        return error
    if isinstance(error, click.ClickException):
        return _usage_error(error)
    if isinstance(error, OSError):
        return translate(error)
    if isinstance(error, MemoryError):
        return HostError(
            "this host gives no more memory", hint="end what else runs here, then run it again"
        )
    if isinstance(error, ModuleNotFoundError):
        return HostError(
            f"this command needs {error.name}, which is not installed here",
            hint="on a connected host: pip install 'airpack[build]'",
        )
    return AirpackError(
        f"a fault in airpack itself: {type(error).__name__}: {error}",
        hint="run it again with -v and send what it prints to whoever maintains airpack",
    )


def _usage_error(error: click.ClickException) -> UsageError:
    path = "airpack"
    if isinstance(error, click.UsageError) and error.ctx:
        path = error.ctx.command_path
    message = " ".join(error.format_message().split()).removesuffix(".")
    return UsageError(message[:1].lower() + message[1:], hint=f"{path} --help")


def _screen(context: list[click.Context]) -> Screen:
    """The screen of the command, or where its flags made no sense, what they say of JSON."""
    screen = context[0].meta.get("airpack.screen") if context else None
    if isinstance(screen, Screen) and screen.as_json:
        return screen
    flags = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    return replace(screen or Screen(), as_json="--json" in flags)
