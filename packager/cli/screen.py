"""The one place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from tqdm import tqdm

from packager.cli.text import harmless, one_line, visible
from packager.errors import AirpackError, UsageError
from packager.progress import Task
from packager.store.atomic import translate

Document = dict[str, object] | list[dict[str, object]]


@dataclass(frozen=True)
class Screen:
    """How this command speaks, as its flags have it. It is the ``Progress`` of all below it."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_input: bool = False
    yes: bool = False
    progress_json: bool = False

    def result(self, document: Document, text: str) -> None:
        """Give the result: the document where JSON was asked for, else the text."""
        _print(json.dumps(document, indent=2) if self.as_json else visible(text))

    def piece(self, text: str) -> None:
        """Give a piece of a model's answer, as it comes; on a terminal without its commands."""
        _print(harmless(text) if sys.stdout.isatty() else text, end="")

    def note(self, message: str) -> None:
        """Say what is being done."""
        if not self.quiet:
            self._say(message)

    def detail(self, message: str) -> None:
        """Say more, where more was asked for."""
        if self.verbose:
            self._say(message)

    def warn(self, message: str) -> None:
        """Say what a person must not miss, quiet or not."""
        self._say(message, f"{self._styled('warning:', 'yellow')} ")

    def error(self, error: AirpackError) -> None:
        """Say what was refused and what helps."""
        if self.as_json:
            document = {"ok": False, "error": error.message, "exit_code": error.exit_code}
            _print(json.dumps({**document, "try": error.hint}, indent=2))
        self._explain(error)

    def failure(self, document: Document, text: str, error: AirpackError) -> NoReturn:
        """Give a result that is a failure, say why, and end with that error's exit code."""
        self.result(document, text)
        self._explain(error)
        raise click.exceptions.Exit(error.exit_code)

    def cancelled(self, exit_code: int) -> None:
        """Say in one line that a person stopped it."""
        if self.as_json:
            document = {"ok": False, "error": "cancelled", "exit_code": exit_code, "try": None}
            _print(json.dumps(document, indent=2))
        click.echo("cancelled", err=True)

    def confirm(self, question: str) -> None:
        """Ask, where somebody is there, before something that cannot be undone; a no cancels."""
        if self.may_ask and not self.yes:
            click.confirm(question, err=True, abort=True)

    def ask(self, fact: str, question: str) -> str:
        """Say ``fact``, ask on the terminal, and return what a person typed, less its spaces.

        Raises ``click.Abort`` where the terminal has ended.
        """
        click.echo(f"{one_line(fact)}\n{question}: ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise click.Abort
        return line.strip()

    def read_turn(self, prompt: str = "> ") -> str | None:
        """What a person says next in a conversation, or ``None`` where they end it."""
        if not sys.stdout.isatty():  # then input() would put the prompt among the answers
            click.echo(prompt, err=True, nl=False)
            prompt = ""
        try:
            return input(prompt)
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo(err=True)
            raise

    def ask_secret(self, prompt: str, *, confirm: bool = False, hint: str) -> bytes:
        """Ask for a passphrase on the terminal; raises ``UsageError`` where nobody is there."""
        if not self.may_ask:
            raise UsageError(f"{prompt}: nobody can be asked here", hint=hint)
        answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return answer.encode("utf-8")

    @property
    def may_ask(self) -> bool:
        """Whether a person is there who may be asked."""
        return not self.no_input and sys.stdin is not None and sys.stdin.isatty()

    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> AbstractContextManager[Task]:
        """Show a piece of work: a bar on a terminal, JSON lines where asked for, else nothing."""
        if self.progress_json:
            return _json_task(label, total, unit, done)
        return self._bar(label, total, unit, done)

    @contextmanager
    def _bar(self, label: str, total: int, unit: str, done: int) -> Iterator[Task]:
        with tqdm(
            desc=label,
            total=total,
            initial=done,
            unit=unit,
            unit_scale=unit == "B",
            unit_divisor=1024,
            disable=self.quiet or not sys.stderr.isatty(),
            leave=False,
            dynamic_ncols=True,
        ) as bar:
            yield _BarTask(bar)

    def _explain(self, error: AirpackError) -> None:
        click.echo(f"{self._styled('error:', 'red')} {one_line(error.message)}", err=True)
        if error.hint:
            click.echo(f"{self._styled('try:', 'green')} {one_line(error.hint)}", err=True)

    def _say(self, message: str, prefix: str = "") -> None:
        if self.progress_json:
            event = "warning" if prefix else "note"
            click.echo(json.dumps({"event": event, "message": message}), err=True)
        else:
            tqdm.write(prefix + visible(message), file=sys.stderr)

    def _styled(self, text: str, colour: str) -> str:
        plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
        return text if plain else click.style(text, fg=colour, bold=True)


@dataclass(frozen=True)
class _BarTask:
    bar: tqdm[NoReturn]

    def advance(self, amount: int) -> None:
        self.bar.update(amount)


class _JsonTask:
    """Says where it is about a hundred times, however often it is told."""

    def __init__(self, label: str, total: int, unit: str, done: int) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = self._said = done
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            if (self._done - self._said) * 100 >= self._total or self._done >= self._total:
                self.say()

    def say(self) -> None:
        self._said = self._done
        line = {
            "event": "progress",
            "task": self._label,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
        }
        click.echo(json.dumps(line), err=True)


@contextmanager
def _json_task(label: str, total: int, unit: str, done: int) -> Iterator[Task]:
    task = _JsonTask(label, total, unit, done)
    task.say()
    yield task


def _print(text: str, end: str = "\n") -> None:
    """Write to standard output; raises ``BrokenPipeError``, ``NoSpaceError``, ``HostError``."""
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise translate(error, Path("standard output")) from error
