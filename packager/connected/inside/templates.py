"""The chat templates of a source: each is rendered before it travels, and travels unchanged.

A template is a program that runs on every prompt. What it may do is looked at twice: its text, when
the source is read (:mod:`packager.runtime.content`), and here what it does, in a process that has
no network and little memory and time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from packager.connected.artefacts import (
    find_bytes,
    find_document,
    keep_bytes,
    keep_document,
)
from packager.connected.workshop import Workshop, key_of
from packager.errors import UnsafeContentError
from packager.format.digest import Digest
from packager.format.foreign_json import parse_json_object
from packager.format.gguf_header import parse_header
from packager.format.template import ChatTemplate
from packager.runtime.environment import worker_command, worker_environment
from packager.store.atomic import naming_refusals, read_capped

MEMORY = 256 << 20  # bytes
SECONDS = 5  # of the processor; a template takes milliseconds
_WALL_SECONDS = 60
MAX_CHARACTERS = 1 << 20
_MAX_DOCUMENT_SIZE = 64 << 20
_SUFFIX = ".template.json"
_TEXT_SUFFIX = ".rendered.txt"  # under its own digest
_KEY, _DEFAULT = "tokenizer.chat_template", "default"
_OWN_FILE, _TOKENIZER = "chat_template.jinja", "tokenizer_config.json"
_HINT = "take a revision of the model without it, or a tokenizer_config.json you have looked into"


def source_templates(files: Mapping[str, Path]) -> Mapping[str, str]:
    """The chat templates of a source, by name: a file of its own counts before the tokenizer's."""
    if _OWN_FILE in files:
        text = read_capped(files[_OWN_FILE].resolve(), _MAX_DOCUMENT_SIZE).decode("utf-8")
        return _present({_DEFAULT: text})
    value = _tokenizer_config(files).get("chat_template")
    if not isinstance(value, list):
        return _present({_DEFAULT: value})
    return _present({each.get("name"): each.get("template") for each in _mappings(value)})


def _tokenizer_config(files: Mapping[str, Path]) -> dict[str, object]:
    if _TOKENIZER not in files:
        return {}
    data = read_capped(files[_TOKENIZER].resolve(), _MAX_DOCUMENT_SIZE)
    return parse_json_object(data, what=_TOKENIZER)


def _mappings(values: list[object]) -> list[dict[str, object]]:
    return [value for value in values if isinstance(value, dict)]


def _present(found: Mapping[object, object]) -> Mapping[str, str]:
    return {n: t for n, t in found.items() if isinstance(n, str) and isinstance(t, str) and t}


def carried_template(workshop: Workshop, variant: str) -> ChatTemplate | None:
    """The template of ``variant``, whose files are the source's; rendered, as one that is made."""
    return _rendered(workshop, variant, source_templates(workshop.sources))


def model_template(workshop: Workshop, variant: str, model: Path) -> ChatTemplate | None:
    """The template inside the GGUF file ``model`` of ``variant``, if there is one.

    Raises ``UnsafeContentError`` where the source has another, or where rendering it shows that
    it must not run.
    """
    with naming_refusals(model), model.open("rb") as stream:
        size = model.stat().st_size
        metadata = parse_header(stream, file_size=size, what=str(model)).metadata
    templates = _present(
        {
            key.removeprefix(_KEY).lstrip(".") or _DEFAULT: value
            for key, value in metadata.items()
            if key == _KEY or key.startswith(f"{_KEY}.")
        }
    )
    if _OWN_FILE in workshop.sources or _TOKENIZER in workshop.sources:
        sources = source_templates(workshop.sources)
        for name in sorted({_DEFAULT, *templates}):
            _check_same(variant, name, templates.get(name), sources.get(name))
    return _rendered(workshop, variant, templates)


def _check_same(variant: str, name: str, has: str | None, source: str | None) -> None:
    if has == source:
        return
    what = f"{variant}: the chat template {name[:40]!a}"
    if has is None or source is None:
        fact = "the source's is not in the model" if has is None else "the source has no such"
        raise UnsafeContentError(f"{what}: {fact}", hint=_HINT)
    pairs = zip_longest(has.splitlines(), source.splitlines())
    line = next((number for number, (a, b) in enumerate(pairs, 1) if a != b), 1)
    raise UnsafeContentError(
        f"{what} in the model is not the source's; they differ from line {line} on", hint=_HINT
    )


def _rendered(
    workshop: Workshop, variant: str, templates: Mapping[str, str]
) -> ChatTemplate | None:
    """Render all of ``templates``; what comes of the default one, if it is among them."""
    made = {name: _render_one(workshop, variant, text) for name, text in templates.items()}
    return made.get(_DEFAULT)


def _render_one(workshop: Workshop, variant: str, template: str) -> ChatTemplate:
    """What ``template`` makes of the smoke prompts; from the cache, if it has been seen before."""
    prompts = workshop.recipe.smoke.prompts
    variables = _variables(workshop.sources)
    key = key_of(
        {
            "what": "chat template",
            "template": template,
            "prompts": list(prompts),
            "variables": dict(variables),
            "jinja2": version("jinja2"),
        }
    )
    held = find_document(
        workshop.cache,
        key,
        _SUFFIX,
        ChatTemplate.parse,
        most=_MAX_DOCUMENT_SIZE,
        name=f"what the chat template of {variant} makes",
        progress=workshop.progress,
    )
    if held is not None and (not held.rendered or first_rendering(workshop, held) is not None):
        return held
    rendered = render(template, prompts, variables, what=variant)
    if len(rendered) < len(prompts):
        workshop.progress.note(
            f"{variant}: its chat template makes no text of a conversation that a user begins"
        )
    made = ChatTemplate(Digest.of(template.encode("utf-8")), tuple(map(_digest, rendered)))
    for digest, text in zip(made.rendered[:1], rendered, strict=False):
        keep_bytes(workshop.cache, digest, _TEXT_SUFFIX, text.encode("utf-8", "surrogatepass"))
    keep_document(workshop.cache, key, _SUFFIX, made.encode())
    return made


def first_rendering(workshop: Workshop, template: ChatTemplate) -> str | None:
    """What ``template`` made of the first smoke prompt; ``None`` where it made no text of it."""
    if not template.rendered:
        return None
    text = find_bytes(
        workshop.cache,
        template.rendered[0],
        _TEXT_SUFFIX,
        most=4 * MAX_CHARACTERS,
        name="what a chat template makes",
        progress=workshop.progress,
    )
    return text.decode("utf-8", "surrogatepass") if text is not None else None


def _digest(text: str) -> Digest:
    return Digest.of(text.encode("utf-8", "surrogatepass"))


def _variables(files: Mapping[str, Path]) -> Mapping[str, str]:
    """The special tokens that a template may name, as far as the source gives their text."""
    config = _tokenizer_config(files)
    found = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[key] = value
    return found


def render(
    template: str, prompts: Sequence[str], variables: Mapping[str, str], *, what: str
) -> tuple[str, ...]:
    """What ``template`` makes of each of ``prompts``, said by a user; empty if it refuses one.

    ``what`` is what errors call the model. Raises ``UnsafeContentError`` where it reaches into
    Python, or for more memory, time or text than any template needs.
    """
    request = {
        "template": template,
        "texts": list(prompts),
        "variables": dict(variables),
        "memory": MEMORY,
        "seconds": SECONDS,
        "characters": MAX_CHARACTERS,
    }
    try:
        done = subprocess.run(
            worker_command("packager.connected.inside.rendering"),
            input=json.dumps(request).encode("ascii"),
            env=worker_environment(os.environ, prefix=Path(sys.prefix), libraries=None),
            capture_output=True,
            cwd="/",
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refuse(what, f"does not come to an end within {_WALL_SECONDS} seconds") from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _refuse(what, f"does not come to an end within {SECONDS} seconds")
    if done.returncode != 0:
        raise _refuse(what, f"stops the process that renders it: {_last_line(done.stderr)}")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise _refuse(what, _printable(answer["refused"]))
    texts = [text for text in answer["rendered"] if text is not None]
    return tuple(texts) if len(texts) == len(prompts) else ()


def _last_line(log: bytes) -> str:
    return _printable(log.decode("utf-8", "replace").strip().rpartition("\n")[2])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _refuse(what: str, fact: str) -> UnsafeContentError:
    return UnsafeContentError(f"{what}: its chat template {fact}", hint=_HINT)
