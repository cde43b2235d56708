"""How the vectors of a text's tokens become one: what sentence-transformers' files say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.fields import Fields
from packager.quantize.gguf_writer import Entry, uint32
from packager.quantize.source import Module

# ``enum llama_pooling_type`` in llama.cpp's ``include/llama.h``.
_MEAN, _FIRST, _LAST = 1, 2, 3
_MODES: Mapping[str, int] = {
    "pooling_mode_mean_tokens": _MEAN,
    "pooling_mode_cls_token": _FIRST,
    "pooling_mode_lasttoken": _LAST,
}
_WORDS: Mapping[str, int] = {"mean": _MEAN, "cls": _FIRST, "lasttoken": _LAST}
# Modules that are the model itself, or what llama.cpp does to every vector.
_PLAIN = ("Transformer", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """The entry, whose key lacks the architecture before it, and notes."""

    entry: Entry
    notes: tuple[str, ...] = ()


def find_pooling(modules: tuple[Module, ...], *, is_encoder: bool) -> Pooling | None:
    """The pooling of a model made of ``modules``; ``None`` for one that makes no vectors.

    Raises ``UsageError`` for modules that llama.cpp does not compute, ``MalformedError`` for a
    pooling that makes no sense.
    """
    if not modules:
        note = "the source does not say how to pool: taking the mean, as sentence-transformers does"
        return Pooling(uint32("pooling_type", _MEAN), (note,)) if is_encoder else None
    pooling = None
    for module in modules:
        if module.kind == "Pooling" and pooling is None:
            pooling = _pooling_type(module)
        elif module.kind not in _PLAIN:
            raise UsageError(
                f"modules.json: the module {module.kind!a} is not what llama.cpp computes",
                hint="use `format: safetensors`",
            )
    return None if pooling is None else Pooling(uint32("pooling_type", pooling))


def _pooling_type(module: Module) -> int:
    where = f"{module.path}/config.json"
    if module.config is None:
        raise UsageError(
            f"the source lacks {where}, which modules.json calls for",
            hint=f"add {where} to source.include in the recipe",
        )
    fields = Fields.of(dict(module.config), where)
    modes = [kind for key, kind in _MODES.items() if fields.flag(key, False)]
    others = [
        key
        for key, value in fields.values.items()
        if key.startswith("pooling_mode_") and key not in _MODES and value is True
    ]
    if not modes and not others and fields.has("pooling_mode"):
        modes = [_WORDS[word] for word in (fields.text("pooling_mode"),) if word in _WORDS]
    if len(modes) != 1 or others:
        raise UsageError(
            f"{where}: llama.cpp pools by the mean, the first or the last token, and by one alone",
            hint="use `format: safetensors`",
        )
    return modes[0]
