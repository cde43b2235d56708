"""The types a recipe may name, and what each means for most tensors of the file.

The list is that of ``llama-quantize`` (llama.cpp's ``tools/quantize/quantize.cpp``), the number
that of ``enum llama_ftype`` in ``include/llama.h``. Which tensor of a mixture gets which type is
decided in :mod:`packager.quantize.mix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.ggml_types import BY_NAME, GgmlType

F32 = BY_NAME["F32"]
F16 = BY_NAME["F16"]
BF16 = BY_NAME["BF16"]
Q1_0 = BY_NAME["Q1_0"]
Q2_0 = BY_NAME["Q2_0"]
Q4_0 = BY_NAME["Q4_0"]
Q4_1 = BY_NAME["Q4_1"]
Q5_0 = BY_NAME["Q5_0"]
Q5_1 = BY_NAME["Q5_1"]
Q8_0 = BY_NAME["Q8_0"]
Q2_K = BY_NAME["Q2_K"]
Q3_K = BY_NAME["Q3_K"]
Q4_K = BY_NAME["Q4_K"]
Q5_K = BY_NAME["Q5_K"]
Q6_K = BY_NAME["Q6_K"]
IQ1_S = BY_NAME["IQ1_S"]
IQ1_M = BY_NAME["IQ1_M"]
IQ2_XXS = BY_NAME["IQ2_XXS"]
IQ2_XS = BY_NAME["IQ2_XS"]
IQ2_S = BY_NAME["IQ2_S"]
IQ3_XXS = BY_NAME["IQ3_XXS"]
IQ3_S = BY_NAME["IQ3_S"]
IQ4_NL = BY_NAME["IQ4_NL"]
IQ4_XS = BY_NAME["IQ4_XS"]
TQ1_0 = BY_NAME["TQ1_0"]
TQ2_0 = BY_NAME["TQ2_0"]
MXFP4 = BY_NAME["MXFP4"]


@dataclass(frozen=True)
class FileType:
    """A type of file: ``number`` goes into its metadata, ``default`` is most tensors' type.

    ``needs_matrix``: most of it would be garbage without an importance matrix.
    """

    name: str
    number: int
    default: GgmlType
    needs_matrix: bool = False

    @property
    def quantizes(self) -> bool:
        """Whether it stores blocks rather than plain floats."""
        return self.default.block > 1


_FILE_TYPES = (
    FileType("F32", 0, F32),
    FileType("F16", 1, F16),
    FileType("BF16", 32, BF16),
    FileType("Q8_0", 7, Q8_0),
    FileType("Q6_K", 18, Q6_K),
    FileType("Q5_K_M", 17, Q5_K),
    FileType("Q5_K_S", 16, Q5_K),
    FileType("Q5_1", 9, Q5_1),
    FileType("Q5_0", 8, Q5_0),
    FileType("Q4_K_M", 15, Q4_K),
    FileType("Q4_K_S", 14, Q4_K),
    FileType("Q4_1", 3, Q4_1),
    FileType("Q4_0", 2, Q4_0),
    FileType("MXFP4_MOE", 38, MXFP4),
    FileType("IQ4_NL", 25, IQ4_NL),
    FileType("IQ4_XS", 30, IQ4_XS),
    FileType("Q3_K_L", 13, Q3_K),
    FileType("Q3_K_M", 12, Q3_K),
    FileType("Q3_K_S", 11, Q3_K),
    FileType("IQ3_M", 27, IQ3_S),
    FileType("IQ3_S", 26, IQ3_S),
    FileType("IQ3_XS", 22, IQ3_S, needs_matrix=True),
    FileType("IQ3_XXS", 23, IQ3_XXS, needs_matrix=True),
    FileType("Q2_K", 10, Q2_K),
    FileType("Q2_K_S", 21, Q2_K, needs_matrix=True),
    FileType("IQ2_M", 29, IQ2_S, needs_matrix=True),
    # Not IQ2_S: llama_ftype_get_default_type has it so.
    FileType("IQ2_S", 28, IQ2_XS, needs_matrix=True),
    FileType("IQ2_XS", 20, IQ2_XS, needs_matrix=True),
    FileType("IQ2_XXS", 19, IQ2_XXS, needs_matrix=True),
    FileType("Q2_0", 41, Q2_0),
    FileType("TQ2_0", 37, TQ2_0),
    FileType("IQ1_M", 31, IQ1_M, needs_matrix=True),
    FileType("TQ1_0", 36, TQ1_0),
    FileType("IQ1_S", 24, IQ1_S, needs_matrix=True),
    FileType("Q1_0", 40, Q1_0),
)

_BY_NAME: Mapping[str, FileType] = {kind.name: kind for kind in _FILE_TYPES}
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

TYPE_NAMES: tuple[str, ...] = tuple(_BY_NAME)

# The types one tensor may be given; those that llama.cpp keeps for activations are none.
TENSOR_TYPES: Mapping[str, GgmlType] = {
    kind.name: kind
    for kind in (
        F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, MXFP4, IQ4_NL, IQ4_XS,
        Q3_K, IQ3_S, IQ3_XXS, Q2_K, IQ2_S, IQ2_XS, IQ2_XXS, Q2_0, TQ2_0, IQ1_M, TQ1_0, IQ1_S, Q1_0,
    )
}  # fmt: skip


# Their blocks are points of a lattice. Where a sum of squares overflows, ggml finds none, and ends
# the process. None can hold a value beyond LARGEST_ON_LATTICE: half precision times a level.
LATTICE_TYPES = (IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S)
LARGEST_ON_LATTICE = 1e9


def file_type(name: str) -> FileType:
    """The file type called ``name``, or by its short name; raises ``UsageError`` for no such."""
    kind = _BY_NAME.get(_ALIASES.get(name, name))
    if kind is None:
        raise UsageError(
            f"{name!a} is not a GGUF type known here", hint=f"choose of {', '.join(TYPE_NAMES)}"
        )
    return kind


def tensor_type(name: str) -> GgmlType:
    """The type of one tensor called ``name``; raises ``UsageError`` for no such."""
    kind = TENSOR_TYPES.get(name)
    if kind is None:
        raise UsageError(
            f"{name!a} is not the type of a tensor", hint=f"choose of {', '.join(TENSOR_TYPES)}"
        )
    return kind
