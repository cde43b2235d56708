"""Which tensors of a checkpoint are matrices of linear layers, told by their names.

No model is built here, and what is not known to be a linear layer is left as it is. Known are the
names that transformers gives to the linear layers of text decoders and encoders; a router, or a
tower that sees or hears, is none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.safetensors_header import TensorEntry
from packager.quantize.compressed.schemes import Scheme
from packager.quantize.floats import FLOAT_TYPES

_TEXT = r"(?:model|language_model|text_model|transformer|encoder|decoder|bert|roberta)\."
# The way from the model to one of its layers of text, and what is in that layer.
_IN_LAYER = re.compile(rf"(?:{_TEXT})*(?P<layer>layers?\.\d+\.(?P<inside>.+))\Z")
_LINEAR = re.compile(
    r"""(?:.+\.)?(?:
        (?:self_attn|attn|attention) \. (?:[qkvo]_proj|qkv_proj)
      | attention\.self \. (?:query|key|value)
      | (?:attention\.output|intermediate|output) \. dense
      | (?:gate|up|down|gate_up)_proj
      | shared_mlp \. (?:in|out)put_linear
      | experts\.\d+ \. w[123]
    )\Z""",
    re.VERBOSE,
)
_EXPERTS = re.compile(r"(?P<all>.+\.experts)\.\d+\.")
_EMBEDDING = re.compile(
    r"(?:.+\.)?(?:embed_tokens|(?:word|position|token_type)_embeddings|w[tp]e)\Z"
)
# Whoever loads a model that has one of text in it may call the way to that otherwise.
_PART_OF_ANOTHER = re.compile(r"(?:\A|\.)(?:language_model|text_model)\.")
_HEAD = "lm_head"


@dataclass(frozen=True)
class Choice:
    """What becomes of a checkpoint's tensors.

    ``quantized`` are names of tensors. Of the others, ``undivided`` are those whose rows the
    groups do not divide, ``stacked`` those that hold the matrices of all experts. ``ignore`` are
    names of modules, or regular expressions after ``re:``, of all linear layers that stay.
    """

    quantized: frozenset[str]
    undivided: tuple[str, ...]
    stacked: tuple[str, ...]
    ignore: tuple[str, ...]


def choose(tensors: Iterable[TensorEntry], scheme: Scheme) -> Choice:
    """Decide which of ``tensors`` get the ``scheme``.

    Raises ``UsageError`` where there is none, or a linear layer whose weights are no floats.
    """
    entries = sorted(tensors, key=lambda entry: entry.name)
    linears = [entry for entry in entries if _is_linear(entry)]
    _check_floats(linears)
    undivided = [entry.name for entry in linears if not scheme.groups(entry.shape[1])]
    # Whoever runs them runs the experts of a layer together: all of them are quantized, or none.
    kept_experts = {experts for name in undivided if (experts := _experts_of(name))}
    quantized = {
        entry.name
        for entry in linears
        if scheme.groups(entry.shape[1]) and _experts_of(entry.name) not in kept_experts
    }
    if not quantized:
        raise _nothing(scheme, undivided)
    ignore = [_HEAD, *(_all_in(experts) for experts in sorted(kept_experts))]
    for entry in entries:
        if entry.name not in quantized and _experts_of(entry.name) not in kept_experts:
            ignore += _ignored(entry)
    return Choice(
        frozenset(quantized),
        tuple(undivided),
        tuple(entry.name for entry in entries if _is_stacked(entry)),
        tuple(dict.fromkeys(ignore)),
    )


def _check_floats(linears: Sequence[TensorEntry]) -> None:
    for entry in linears:
        if entry.dtype not in FLOAT_TYPES:
            raise UsageError(
                f"{entry.name} is {entry.dtype}; it is quantized from {', '.join(FLOAT_TYPES)}",
                hint="start from the model's 16-bit weights, or use `format: safetensors`",
            )


def _is_linear(entry: TensorEntry) -> bool:
    module, _, parameter = entry.name.rpartition(".")
    found = _IN_LAYER.match(module)
    is_matrix = parameter == "weight" and len(entry.shape) == 2 and 0 not in entry.shape
    return is_matrix and found is not None and _LINEAR.match(found["inside"]) is not None


def _is_stacked(entry: TensorEntry) -> bool:
    is_expert = "conv" not in entry.name and _IN_LAYER.match(entry.name) is not None
    return is_expert and len(entry.shape) == 3


def _experts_of(name: str) -> str | None:
    """The module of all experts of a layer, if the tensor ``name`` is of one of them."""
    found = _EXPERTS.match(name)
    return found["all"] if found else None


def _ignored(entry: TensorEntry) -> Iterator[str]:
    """What keeps the module of ``entry``, which stays, from being taken for a quantized one."""
    module, _, parameter = entry.name.rpartition(".")
    if _is_stacked(entry):
        # To whoever runs them, experts in one tensor are linear layers all the same.
        yield _all_in(module.rpartition(".")[0] if parameter == "weight" else module)
    elif parameter == "weight" and len(entry.shape) == 2 and not _EMBEDDING.match(module):
        yield _one(module)


def _one(module: str) -> str:
    """What names the linear layer ``module``, and all beside it where that is no layer of text."""
    if _IN_LAYER.match(module):
        return f"re:{_way_to(module)}$" if _PART_OF_ANOTHER.search(module) else module
    first, has_more, _ = re.sub(rf"\A(?:{_TEXT})*", "", module).partition(".")
    return rf"re:(?:.*\.)?{re.escape(first)}\..*" if has_more else first


def _all_in(module: str) -> str:
    return rf"re:{_way_to(module)}\..*"


def _way_to(module: str) -> str:
    """The regular expression of ``module`` in a layer of text."""
    found = _IN_LAYER.match(module)
    if found and _PART_OF_ANOTHER.search(module):
        return ".*" + re.escape(found["layer"])
    return re.escape(module)


def _nothing(scheme: Scheme, undivided: Sequence[str]) -> UsageError:
    if undivided:
        return UsageError(
            f"{scheme.name}: groups of {scheme.group} divide the rows of no linear layer, "
            f"as of {undivided[0]}",
            hint="choose FP8_DYNAMIC or W8A8, which scale whole rows",
        )
    return UsageError(
        f"{scheme.name}: the model has no linear layers that are known by name",
        hint="carry it as it is with `format: safetensors`",
    )
