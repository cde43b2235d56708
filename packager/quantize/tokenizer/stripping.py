"""White space beside special tokens, which transformers takes away for some of them.

llama.cpp takes it away after every special token of a model that is called Phi-3, but for three,
and before or after no other (``llama-vocab.cpp``, "set attributes by model name").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packager.quantize.tokenizer.vocabulary import AddedToken

_NOT_OF_PHI3 = {"<unk>", "<s>", "<|endoftext|>"}
# Stands in for hidden text, which no prompt has.
_NEVER_IN_TEXT = {"<mask>", "[MASK]"}


@dataclass(frozen=True)
class Stripping:
    """Whether it is as in Phi-3; ``notes`` tell what llama.cpp does otherwise."""

    is_as_phi3: bool
    notes: tuple[str, ...]


def find_stripping(added: Sequence[AddedToken]) -> Stripping:
    """What the ``added`` tokens of a model do to the white space beside them."""
    stripping = {token.content for token in added if any(token.strips)} - _NEVER_IN_TEXT
    right_only = {token.content for token in added if token.strips == (False, True)}
    is_as_phi3 = bool(stripping) and stripping == right_only == (
        {token.content for token in added} - _NOT_OF_PHI3
    )
    if is_as_phi3 or not stripping:
        return Stripping(is_as_phi3, ())
    more = f" and {len(stripping) - 1} other tokens" if len(stripping) > 1 else ""
    note = f"llama.cpp keeps the white space beside {min(stripping)!a}{more}; transformers does not"
    return Stripping(is_as_phi3=False, notes=(note,))
