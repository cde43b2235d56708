"""The one place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NoReturn

import click
from tqdm import tqdm

from packager.errors import AirpackError, UsageError
from packager.progress import Task

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
        click.echo(json.dumps(document, indent=2) if self.as_json else text)

    def piece(self, text: str) -> None:
        """Give a piece of a result that comes bit by bit."""
        click.echo(text, nl=False)

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
        self._say(f"{self._styled('warning:', 'yellow')} {message}")

    def error(self, error: AirpackError) -> None:
        """Say what was refused and what helps."""
        if self.as_json:
            document = {"ok": False, "error": error.message, "exit_code": error.exit_code}
            click.echo(json.dumps({**document, "try": error.hint}, indent=2))
        click.echo(f"{self._styled('error:', 'red')} {error.message}", err=True)
        if error.hint:
            click.echo(f"{self._styled('try:', 'green')} {error.hint}", err=True)

    def confirm(self, question: str) -> None:
        """Ask before something that cannot be undone; raises ``UsageError`` on a no."""
        if self.yes:
            return
        if not self.may_ask:
            raise UsageError(f"{question} Nobody can be asked here.", hint="add --yes")
        if not click.confirm(question, err=True):
            raise UsageError("not done, as you wished")

    def ask_secret(self, prompt: str, *, confirm: bool = False) -> bytes:
        """Ask for a passphrase on the terminal; raises ``UsageError`` where nobody is there."""
        if not self.may_ask:
            raise UsageError(f"{prompt}: nobody can be asked here", hint="name a --passphrase-file")
        answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return answer.encode("utf-8")

    @property
    def may_ask(self) -> bool:
        """Whether a person is there who may be asked."""
        return not self.no_input and sys.stdin.isatty()

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

    def _say(self, message: str) -> None:
        if self.progress_json:
            click.echo(json.dumps({"event": "note", "message": message}), err=True)
        else:
            tqdm.write(message, file=sys.stderr)

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
