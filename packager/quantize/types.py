"""The types a recipe may name, and what each means for most tensors of the file.

``FileType.number`` is ``enum llama_ftype`` in llama.cpp's ``include/llama.h``. Which tensor of a
mixture gets which type is decided in :mod:`packager.quantize.mix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.ggml_types import BY_NAME, GgmlType

F32 = BY_NAME["F32"]
F16 = BY_NAME["F16"]
BF16 = BY_NAME["BF16"]
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


@dataclass(frozen=True)
class FileType:
    """A type of file: ``number`` goes into its metadata, ``default`` is most tensors' type."""

    name: str
    number: int
    default: GgmlType

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
    FileType("Q3_K_L", 13, Q3_K),
    FileType("Q3_K_M", 12, Q3_K),
    FileType("Q3_K_S", 11, Q3_K),
    FileType("Q2_K", 10, Q2_K),
)

_BY_NAME: Mapping[str, FileType] = {kind.name: kind for kind in _FILE_TYPES}

TYPE_NAMES: tuple[str, ...] = tuple(_BY_NAME)


def file_type(name: str) -> FileType:
    """The file type called ``name``; raises ``UsageError`` for an unknown one."""
    if name not in _BY_NAME:
        raise UsageError(
            f"{name!a} is not a GGUF type known here", hint=f"choose of {', '.join(TYPE_NAMES)}"
        )
    return _BY_NAME[name]
