"""Which tokens begin and end a text, and the template that makes a chat into one.

transformers scatters this over four files; the later in this list wins where they disagree:
``config.json`` (numbers), ``tokenizer_config.json`` (texts), the post-processor of
``tokenizer.json`` (what is really put around a text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields
from packager.quantize.source import MAX_TEMPLATE_SIZE, Documents
from packager.quantize.tokenizer.vocabulary import Vocabulary

# transformers' word -> the key of GGUF, misspelt as llama.cpp has it
_ROLES: Mapping[str, str] = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
# The ends of a turn, the first that a vocabulary has.
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\Z")
_MAX_TEMPLATES = 64


@dataclass(frozen=True)
class SpecialTokens:
    """``numbers``: GGUF's key -> token. ``templates``: name -> Jinja, "default" the usual one."""

    numbers: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    templates: Mapping[str, str]


def special_tokens(documents: Documents, vocabulary: Vocabulary) -> SpecialTokens:
    """Gather the special tokens; raises ``MalformedError`` for values that make no sense."""
    number_of = {token: number for number, token in enumerate(vocabulary.tokens)}
    config = Fields.of(dict(documents.tokenizer_config), "tokenizer_config.json")
    first, last = _surroundings(documents)
    numbers: dict[str, int] = {}
    for role, key in _ROLES.items():
        text = {"bos": first, "eos": last}.get(role) or _token_text(config, f"{role}_token")
        number = number_of.get(text) if text is not None else None
        if number is None:
            number = _configured_number(documents, f"{role}_token_id", len(vocabulary.tokens))
        if number is not None:
            numbers[key] = number
    if vocabulary.model == "bert":
        _name_surroundings(numbers, first, number_of)
    turn_end = next((text for text in _TURN_ENDS if text in number_of), None)
    if turn_end is not None:
        numbers["eot_token_id"] = number_of[turn_end]
    return SpecialTokens(
        numbers=numbers,
        adds_bos=_adds(documents, "bos", first, "bos_token_id" in numbers, vocabulary),
        adds_eos=_adds(documents, "eos", last, "eos_token_id" in numbers, vocabulary),
        templates=_templates(documents, config),
    )


def _name_surroundings(
    numbers: dict[str, int], first: str | None, number_of: Mapping[str, int]
) -> None:
    """Name what llama.cpp puts around every text of a BERT; it ends the process without.

    Raises ``UsageError`` where they are unknown.
    """
    begin = number_of.get(first or "", numbers.get("cls_token_id"))
    if begin is None or "seperator_token_id" not in numbers:
        raise UsageError(
            "tokenizer_config.json: cls_token and sep_token: missing, and llama.cpp puts them "
            "around every text"
        )
    numbers["bos_token_id"] = begin


def _adds(
    documents: Documents, role: str, found: str | None, known: bool, vocabulary: Vocabulary
) -> bool:
    """Whether the token of ``role`` is put around every text."""
    if not known:
        return False
    if found is not None:
        return True
    tokenizer = documents.tokenizer
    if tokenizer is not None and tokenizer.get("post_processor") is not None:
        return False
    flag = documents.tokenizer_config.get(f"add_{role}_token")
    # The default of transformers' LlamaTokenizer, where nothing is said.
    return flag if isinstance(flag, bool) else role == "bos" and vocabulary.model == "llama"


def _surroundings(documents: Documents) -> tuple[str | None, str | None]:
    """The special tokens that the post-processor puts before and after a text."""
    if documents.tokenizer is None:
        return None, None
    tokenizer = Fields.of(dict(documents.tokenizer), "tokenizer.json")
    processor = tokenizer.optional_mapping("post_processor")
    for step in [processor, *processor.mappings("processors", [])]:
        if step.values.get("type") in ("BertProcessing", "RobertaProcessing"):
            return _first_text(step, "cls"), _first_text(step, "sep")
        if step.values.get("type") != "TemplateProcessing":
            continue
        single = list(step.mappings("single"))
        texts = [part.optional_mapping("SpecialToken").optional_text("id") for part in single]
        at = next((i for i, part in enumerate(single) if part.has("Sequence")), 0)
        before = [text for text in texts[:at] if text]
        after = [text for text in texts[at + 1 :] if text]
        return (before[0] if before else None), (after[-1] if after else None)
    return None, None


def _first_text(step: Fields, key: str) -> str:
    """The text of a pair of a token and its number."""
    pair = step.items(key)
    if len(pair) != 2 or not isinstance(pair[0], str):
        raise step.refuse(key, "expected a token and its number")
    return pair[0]


def _token_text(config: Fields, key: str) -> str | None:
    value = config.values.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _configured_number(documents: Documents, key: str, size: int) -> int | None:
    text = documents.config.get("text_config")
    value = documents.config.get(key, text.get(key) if isinstance(text, dict) else None)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        return None
    return value


def _templates(documents: Documents, config: Fields) -> dict[str, str]:
    """The chat templates: a file of its own counts before ``tokenizer_config.json``."""
    if documents.chat_template is not None:
        return {"default": documents.chat_template}
    templates = _templates_in(config)
    if sum(map(len, templates.values())) > MAX_TEMPLATE_SIZE or len(templates) > _MAX_TEMPLATES:
        raise MalformedError(
            f"{config.place('chat_template')}: more than {_MAX_TEMPLATES} templates, or longer "
            f"than {MAX_TEMPLATE_SIZE} characters"
        )
    return templates


def _templates_in(config: Fields) -> dict[str, str]:
    value = config.values.get("chat_template")
    if isinstance(value, str):
        return {"default": value} if value else {}
    if value is None:
        return {}
    templates = {}
    for fields in config.mappings("chat_template"):
        name = fields.text("name")
        if not _TEMPLATE_NAME.match(name):
            raise fields.refuse("name", f"{name[:80]!a} is not a template's name")
        templates[name] = fields.text("template")
    return templates
