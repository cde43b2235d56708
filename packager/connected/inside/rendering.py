"""The process that renders a chat template, from inside: cut off, with little memory and time.

It renders as transformers does (``utils/chat_template_utils.py``), whose templates these are: the
same environment of Jinja2, the same extensions and helpers. Jinja2's sandbox refuses attributes
that lead into Python; the limits are for what it does not refuse.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime, timezone
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from packager.runtime.egress import watch_egress
from packager.runtime.sandbox import enter_namespace

# Texts that depend on the day have to be the same whenever a bundle is built.
_A_DAY = datetime(2000, 1, 1, tzinfo=timezone.utc)


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant says, for training; here, as if unmarked."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja2 types it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def main() -> None:
    """Read the request, ``{"template", "texts", "variables", ...}``, and answer.

    The answer is ``{"rendered": [text or null...]}`` or ``{"refused": why}``. ``memory`` is in
    bytes, and beyond what the process takes by itself; ``seconds`` are of the processor;
    ``characters`` are the most that a text may have.
    """
    request = json.load(sys.stdin)
    enter_namespace()
    watch_egress()
    _limit(resource.RLIMIT_CPU, request["seconds"])
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, _address_space() + request["memory"])
    json.dump(_answer(request), sys.stdout)


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, value))


def _address_space() -> int:
    """Bytes of address space that this process has; proc(5), statm."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _answer(request: dict[str, Any]) -> dict[str, object]:
    try:
        texts = [_render(request, text) for text in request["texts"]]
    except SecurityError as error:
        return {"refused": f"reaches into Python: {error}"}
    except (MemoryError, OverflowError):  # the sandbox bounds range() by an OverflowError
        return {"refused": "makes a text without end"}
    except RecursionError:
        return {"refused": "calls itself without end"}
    if any(text and len(text) > request["characters"] for text in texts):
        return {"refused": f"makes a text of more than {request['characters']} characters"}
    return {"rendered": texts}


def _render(request: dict[str, Any], text: str) -> str | None:
    """What the template makes of a conversation that ``text`` begins; ``None`` if it refuses."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _A_DAY.strftime
    try:
        return environment.from_string(request["template"]).render(
            **request["variables"],
            messages=[{"role": "user", "content": text}],
            add_generation_prompt=True,
        )
    except SecurityError:
        raise
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: object, **options: Any) -> str:
    """Jinja2's own would escape what means something in HTML."""
    return json.dumps(value, **{"ensure_ascii": False, **options})
