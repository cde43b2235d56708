"""How text is cut before BPE: the regular expressions of ``tokenizer.json``, by llama.cpp's name.

llama.cpp has the expressions compiled in and a GGUF file only names them
(``llama-vocab.cpp``, ``llm_tokenizer_bpe``). Looking the expression itself up is exact where
hashing the tokens of a sample text, as llama.cpp's converter does, knows only tokenizers that it
has met.
"""

from __future__ import annotations

from collections.abc import Mapping

from packager.errors import UsageError
from packager.format.fields import Fields

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_LLAMA3 = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_ENDS}"
_QWEN2 = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_ENDS}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_ENDS}"
)
_SEED_CODER = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_ENDS}"
_TEKKEN = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_ENDS}"
)
_GPT4O = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_ENDS}"
)
_DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    _DIGIT,
)

# (the expressions in their order, ignore_merges) -> llama.cpp's name
_NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "smaug-bpe",
    ((_QWEN2,), False): "qwen2",
    ((_QWEN35,), False): "qwen35",
    ((_SEED_CODER,), False): "seed-coder",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
    (_DEEPSEEK_CODER, False): "deepseek-coder",
}

KNOWN_NAMES: tuple[str, ...] = tuple(_NAMES.values())


def pretokenizer_name(tokenizer: Fields, *, ignores_merges: bool) -> str:
    """llama.cpp's name for the pre-tokenizer of a byte-level ``tokenizer.json``.

    ``ignores_merges``: a word that is a token is taken whole. Raises ``UsageError`` for cuts
    that llama.cpp does not know.
    """
    steps = tuple(
        expression
        for fields in pretokenizer_steps(tokenizer)
        for expression in _expressions(fields)
    )
    if (steps, ignores_merges) not in _NAMES:
        shown = " then ".join(steps) or "none"
        raise UsageError(
            f"{tokenizer.where}: llama.cpp has no name for this pre-tokenizer: {shown[:300]}"
            f"{' with ignore_merges' if ignores_merges else ''}",
            hint="use `format: safetensors`",
        )
    return _NAMES[steps, ignores_merges]


def pretokenizer_steps(tokenizer: Fields) -> tuple[Fields, ...]:
    """The steps of ``pre_tokenizer``, one after the other."""
    if not tokenizer.has("pre_tokenizer"):
        return ()
    outer = tokenizer.mapping("pre_tokenizer")
    if outer.text("type") == "Sequence":
        return tuple(outer.mappings("pretokenizers"))
    return (outer,)


def _expressions(step: Fields) -> tuple[str, ...]:
    kind = step.text("type")
    if kind == "ByteLevel" and not step.flag("add_prefix_space", False):
        return (_GPT2,) if step.flag("use_regex", True) else ()
    if kind == "Digits":
        return (_DIGIT if step.flag("individual_digits", False) else rf"{_DIGIT}+",)
    if kind == "Split":
        cut = (step.text("behavior", "Isolated"), step.flag("invert", False))
        pattern = step.mapping("pattern")
        # Both keep what matches as one piece; the expressions match all of any text.
        if cut in (("Isolated", False), ("Removed", True)) and pattern.has("Regex"):
            expression = pattern.text("Regex")
            return (expression.replace("\r", r"\r").replace("\n", r"\n"),)
    raise UsageError(
        f"{step.where}: the pre-tokenizer {kind} as set up here is unknown to llama.cpp",
        hint="use `format: safetensors`",
    )
