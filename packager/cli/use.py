"""``airpack run`` and ``airpack serve``: asking an installed model, oneself or through HTTP."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.conversation import converse, say
from packager.cli.history import History, default_history
from packager.cli.hosts import home
from packager.cli.models import name_argument, variant_option
from packager.cli.screen import Screen
from packager.errors import UsageError
from packager.isolated.lifecycle import InstalledVariant, find_variant
from packager.runtime.chat import DEFAULT_MAX_TOKENS, Conversation, generate
from packager.runtime.engine import LOOPBACK, Engine, EngineOptions
from packager.runtime.model_file import read_model_file
from packager.runtime.serve import DEFAULT_PORT
from packager.runtime.serve import serve as serve_model
from packager.runtime.vectors import embed

_MAX_PROMPT_SIZE = 1 << 20
_ONLY_THIS_HOST = (LOOPBACK, "::1", "localhost")


@click.command(cls=Command)
@name_argument
@click.argument("prompt", required=False)
@variant_option
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_TOKENS,
    show_default=True,
    help="The longest answer.",
)
@click.option("--no-history", is_flag=True, help="Keep no questions for the next conversation.")
@click.pass_obj
def run(
    screen: Screen,
    name: str,
    prompt: str | None,
    variant: str | None,
    max_tokens: int,
    no_history: bool,
) -> None:
    """Ask NAME, or talk with it.

    It is asked PROMPT, or what comes on standard input; on a terminal, a conversation begins.
    The model runs with no network in reach. One question is answered greedily, so each time the
    same; a conversation is as lively as the model asks for, and its questions, not the answers, are
    kept for the up key of the next, in a file for this account alone. A model for search answers
    with the vector of PROMPT, as JSON.
    """
    installed = find_variant(home(), name, variant)
    if read_model_file(installed.model).makes_vectors:
        _show_vector(screen, installed, prompt)
        return
    if prompt is None and screen.may_ask and not screen.as_json:
        _converse(screen, installed, max_tokens, None if no_history else default_history())
        return
    question = _question(installed, prompt)
    pieces = generate(installed.model, question, max_tokens=max_tokens, options=_options(installed))
    if screen.as_json:
        screen.result(_answer_document(installed, question) | {"answer": "".join(pieces)}, "")
        return
    say(screen, pieces)


@click.command(cls=Command)
@name_argument
@click.option("--host", default=LOOPBACK, show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="0 takes any free one.",
)
@variant_option
@click.pass_obj
def serve(screen: Screen, name: str, host: str, port: int, variant: str | None) -> None:
    """Answer OpenAI-style HTTP requests for NAME until Ctrl-C, SIGTERM or a hangup.

    The model itself runs with no network in reach: what listens is airpack, and only the routes
    of OpenAI's API are there.
    """
    installed = find_variant(home(), name, variant)
    if host not in _ONLY_THIS_HOST:
        screen.warn(f"whoever reaches {host} may ask this model; nothing asks them who they are")
    screen.note(f"loading {name} {installed.variant.name}")
    with serve_model(
        installed.model, host=host, port=port, name=name, adapter=installed.adapter
    ) as service:
        example = service.example if shutil.which("curl") else service.example_without_curl
        cut_off = service.egress.namespace
        place = "no network in the model's reach" if cut_off else "network NOT cut off here"
        screen.result(
            {
                "ok": True,
                "name": name,
                "variant": installed.variant.name,
                "url": service.url,
                "namespace": cut_off,
            },
            f"serving {name} {installed.variant.name} at {service.url}, {place}; Ctrl-C stops it\n"
            f"ask it: {example}",
        )
        service.wait(lambda error: screen.warn(f"{error.message}; starting it again"))
    screen.note("stopped")


def _options(installed: InstalledVariant) -> EngineOptions:
    return EngineOptions(adapter=installed.adapter)


def _question(installed: InstalledVariant, prompt: str | None) -> str:
    question = prompt if prompt is not None else _read_prompt()
    if not question:
        name = installed.generation.name
        raise UsageError("nothing to ask", hint=f'airpack run {name} "your question"')
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the prompt: not UTF-8 text, at character {error.start}") from None
    return question


def _answer_document(installed: InstalledVariant, question: str) -> dict[str, object]:
    return {
        "ok": True,
        "name": installed.generation.name,
        "variant": installed.variant.name,
        "prompt": question,
    }


def _show_vector(screen: Screen, installed: InstalledVariant, prompt: str | None) -> None:
    question = _question(installed, prompt)
    vector = list(embed(installed.model, question, options=_options(installed)))
    document = _answer_document(installed, question) | {"vector": vector}
    screen.result(document, json.dumps(vector))


def _read_prompt() -> str:
    """What comes on standard input; nothing from a terminal, where somebody would have to type."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    data = sys.stdin.buffer.read(_MAX_PROMPT_SIZE + 1)
    if len(data) > _MAX_PROMPT_SIZE:
        raise UsageError(f"standard input: a prompt of more than {_MAX_PROMPT_SIZE} bytes")
    try:
        return data.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input: not UTF-8 text, at byte {error.start}") from None


def _converse(
    screen: Screen, installed: InstalledVariant, max_tokens: int, history: Path | None
) -> None:
    title = f"{installed.generation.name} {installed.variant.name}"
    screen.note(f"loading {title}")
    with Engine(installed.model, _options(installed)) as engine:
        screen.note(f"{title} listens: /help says how to talk with it, Ctrl-D ends")
        conversation = Conversation(engine, max_tokens=max_tokens)
        converse(screen, conversation, History(history), max_tokens)
