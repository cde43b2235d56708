"""llama.cpp's mixtures as tables: for each type of file, which part of a model gets what.

Of the rules for a part the first that holds decides; where none does, the file's default type
stands. Source: ``llama_tensor_get_type_impl`` and ``tensor_type_fallback`` in llama.cpp's
``src/llama-quant.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from packager.format.ggml_types import GgmlType
from packager.quantize.types import (
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
    IQ4_NL,
    IQ4_XS,
    Q2_0,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    TQ1_0,
    TQ2_0,
)


@dataclass(frozen=True)
class ModelShape:
    """What a mixture depends on. ``queries_per_key`` is heads over key-value heads.

    ``experts``: how many each layer chooses from; 0 where there are none.
    """

    layers: int
    queries_per_key: int
    is_70b: bool = False
    experts: int = 0


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: the ``index``-th of ``count`` of its part of the model."""

    model: ModelShape
    index: int
    count: int
    has_matrix: bool

    @property
    def is_in_first_eighth(self) -> bool:
        """Whether it is in the first eighth of the layers."""
        return self.index < self.count // 8

    @property
    def deserves_more_bits(self) -> bool:
        """Whether it is in the first or the last eighth, or every third between."""
        return (
            self.is_in_first_eighth
            or self.index >= 7 * self.count // 8
            or (self.index - self.count // 8) % 3 == 2
        )


Condition = Callable[[Place], bool]
Rules = Mapping[str, tuple[tuple[Condition, GgmlType], ...]]


def _always(_place: Place) -> bool:
    return True


def _shared_by_four(place: Place) -> bool:
    return place.model.queries_per_key >= 4


def _shared_by_four_or_experts(place: Place) -> bool:
    return place.model.queries_per_key >= 4 or place.model.experts >= 4


def _first_two(place: Place) -> bool:
    return place.index < 2


def _first_four(place: Place) -> bool:
    return place.index < 4


def _first_sixteenth(place: Place) -> bool:
    return place.index < place.count // 16


def _first_eighth(place: Place) -> bool:
    return place.is_in_first_eighth


def _middle(place: Place) -> bool:
    return not place.is_in_first_eighth and place.index < 7 * place.count // 8


def _more_bits(place: Place) -> bool:
    return place.deserves_more_bits


def _more_bits_of_eight_experts(place: Place) -> bool:
    return place.model.experts == 8 and place.deserves_more_bits


def _no_matrix(place: Place) -> bool:
    return not place.has_matrix


def _first_eighth_no_matrix(place: Place) -> bool:
    return place.is_in_first_eighth and not place.has_matrix


def _first_eighth_with_matrix(place: Place) -> bool:
    return place.is_in_first_eighth and place.has_matrix


LOWEST = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"))
"""Types of file with rules of their own, down to how tensors are counted."""

OUTPUT_OF_FIVE_BITS = LOWEST | {"IQ3_XXS"}
"""Types of file whose output is Q5_K; of the others it is Q6_K."""

EMBEDDINGS: Mapping[str, GgmlType] = {
    "IQ1_S": Q2_K,
    "IQ1_M": Q2_K,
    "IQ2_XXS": Q2_K,
    "IQ2_XS": Q2_K,
    "IQ2_S": IQ3_S,
    "IQ2_M": IQ3_S,
    "IQ3_XXS": IQ3_S,
    "TQ1_0": Q4_K,
    "TQ2_0": Q4_K,
    "Q2_0": Q4_K,
}

ATTENTION_VALUE: Rules = {
    "IQ1_S": ((_shared_by_four_or_experts, Q4_K), (_always, Q2_K)),
    "IQ1_M": ((_shared_by_four_or_experts, Q4_K), (_always, Q2_K)),
    "IQ2_XXS": ((_shared_by_four_or_experts, Q4_K), (_always, Q2_K)),
    "IQ2_XS": ((_shared_by_four_or_experts, Q4_K), (_always, Q2_K)),
    "IQ2_S": ((_shared_by_four_or_experts, Q4_K), (_always, IQ3_S)),
    "IQ2_M": ((_shared_by_four_or_experts, Q4_K), (_always, IQ3_S)),
    "IQ3_XXS": ((_shared_by_four, Q4_K), (_no_matrix, IQ3_S)),
    "IQ3_XS": ((_shared_by_four, Q4_K),),
    "IQ3_S": ((_shared_by_four, Q4_K),),
    "IQ3_M": ((_always, Q4_K),),
    "IQ4_NL": ((_shared_by_four, Q5_K),),
    "IQ4_XS": ((_shared_by_four, Q5_K),),
    "Q2_K": ((_shared_by_four, Q4_K), (_always, Q3_K)),
    "Q2_K_S": ((_shared_by_four, Q4_K),),
    "Q3_K_M": ((_first_two, Q5_K), (_always, Q4_K)),
    "Q3_K_L": ((_always, Q5_K),),
    "Q4_K_S": ((_first_four, Q5_K),),
    "Q4_K_M": ((_more_bits, Q6_K),),
    "Q5_K_M": ((_more_bits, Q6_K),),
}

QUERY_AND_KEY: Rules = {
    "IQ3_XXS": ((_always, IQ2_S),),
    "IQ3_XS": ((_always, IQ3_XXS),),
}

AFTER_ATTENTION: Rules = {
    "IQ1_S": ((_always, IQ2_XXS),),
    "IQ1_M": ((_always, IQ2_XXS),),
    "IQ2_S": ((_always, IQ3_S),),
    "IQ2_M": ((_always, IQ3_S),),
    "IQ3_XXS": ((_always, IQ3_S),),
    "IQ3_M": ((_always, Q4_K),),
    "Q2_K": ((_always, Q3_K),),
    "Q3_K_M": ((_always, Q4_K),),
    "Q3_K_L": ((_always, Q5_K),),
}

AFTER_ATTENTION_OF_FIVE_BITS = LOWEST | {
    "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS",
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M",
}  # fmt: skip
"""Types of file whose attention output is Q5_K in models of eight experts."""

FEED_FORWARD_IN: Rules = {"IQ3_XS": ((_middle, IQ3_XXS),)}

FEED_FORWARD_DOWN: Rules = {
    "IQ1_S": ((_first_eighth, Q2_K),),
    "IQ1_M": ((_first_eighth, Q2_K),),
    "IQ2_XXS": ((_first_eighth, Q2_K),),
    "IQ2_XS": ((_first_eighth, Q2_K),),
    "IQ2_S": ((_first_eighth, IQ3_S),),
    "IQ2_M": ((_first_eighth, IQ3_S),),
    "IQ3_XXS": ((_first_eighth_no_matrix, Q4_K), (_no_matrix, Q3_K)),
    "IQ3_M": ((_first_eighth, Q4_K), (_more_bits_of_eight_experts, Q4_K)),
    "IQ4_NL": ((_first_eighth_no_matrix, Q5_K),),
    "IQ4_XS": ((_first_eighth_no_matrix, Q5_K),),
    "Q2_K": ((_always, Q3_K),),
    "Q2_K_S": ((_first_eighth, Q4_K),),
    "Q3_K_M": ((_first_sixteenth, Q5_K), (_always, Q4_K)),
    "Q3_K_L": ((_always, Q5_K),),
    "Q4_0": ((_first_eighth_with_matrix, Q4_1),),
    "Q4_K_S": ((_first_eighth, Q5_K),),
    "Q4_K_M": ((_more_bits, Q6_K),),
    "Q5_0": ((_first_eighth_with_matrix, Q5_1),),
    "Q5_K_M": ((_more_bits, Q6_K),),
}

FALLBACKS: Mapping[GgmlType, GgmlType] = {
    IQ1_S: IQ4_NL,
    IQ1_M: IQ4_NL,
    IQ2_XXS: IQ4_NL,
    IQ2_XS: IQ4_NL,
    IQ2_S: IQ4_NL,
    IQ3_XXS: IQ4_NL,
    IQ3_S: IQ4_NL,
    IQ4_XS: IQ4_NL,
    Q2_0: Q4_0,
    Q2_K: Q4_0,
    Q3_K: Q4_0,
    TQ1_0: Q4_0,
    TQ2_0: Q4_0,
    Q4_K: Q5_0,
    Q5_K: Q5_1,
    Q6_K: Q8_0,
}
"""What takes over where rows are not whole blocks: the nearest type with blocks of 32."""


def first_that_holds(rules: Rules, file_type: str, place: Place) -> GgmlType | None:
    """The type that ``rules`` give a tensor at ``place`` of a file of ``file_type``, if any."""
    for holds, kind in rules.get(file_type, ()):
        if holds(place):
            return kind
    return None
