"""The compiled kernels, and why there are none where there are none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packager.errors import AirpackError, EngineError
from packager.format.ggml_types import BY_NAME, GgmlType
from packager.quantize.simd.checking import Quantize, Widen, gives_the_same, widens_the_same
from packager.quantize.simd.compiling import Vectors, compile_for, find_vectors

# Of these, Q4_1, Q5_0 and Q5_1 only with a matrix: without one, ggml's are fast.
KINDS = tuple(
    BY_NAME[name]
    for name in (
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL"),
        *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"),
    )
)


@dataclass(frozen=True)
class Halves:
    """What can be done with half-precision numbers, given by address and count."""

    widen: Widen  # to float32 at the second address
    are_finite: Callable[[int, int], bool]


@dataclass(frozen=True)
class Compiled:
    """Functions that give the bytes that ggml's give, for all types of :data:`KINDS` or fewer.

    ``summary`` says which kernels these are, or why they are not here.
    """

    functions: Mapping[GgmlType, Quantize]
    halves: Halves | None
    summary: str

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to ggml that could be done here."""
        return len(self.functions) == len(KINDS) and self.halves is not None


def load_compiled(ggml: ctypes.CDLL, vectors: Vectors | None = None) -> Compiled:
    """Compile what must be compiled, and keep the functions that agree with ``ggml`` here.

    ``vectors`` are the widest of this CPU unless they are given.
    """
    try:
        vectors = vectors or find_vectors()
        path = compile_for(vectors)
        library = _open(path)
        functions = {kind: _function(library, kind, ggml) for kind in KINDS}
        halves = _halves(library)
    except AirpackError as error:
        return Compiled({}, None, f"ggml's own: {error.message}")
    except AttributeError:  # a compiler that was content with less
        return Compiled({}, None, f"ggml's own: {path} lacks some of the kernels")
    agreeing = {
        kind: function
        for kind, function in functions.items()
        if gives_the_same(kind, function, ggml)
    }
    found = Compiled(
        agreeing,
        halves if widens_the_same(halves.widen, ggml) else None,
        f"compiled for {vectors.name}",
    )
    return found if found.is_complete else _saying_what_differs(found)


def _saying_what_differs(found: Compiled) -> Compiled:
    names = [kind.name for kind in KINDS if kind not in found.functions]
    if found.halves is None:
        names.append("reading F16")
    return Compiled(
        found.functions,
        found.halves,
        f"{found.summary}; ggml's own for {', '.join(names)}, where they differ on this host",
    )


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{path}: cannot be loaded: {error}") from None


def _function(library: ctypes.CDLL, kind: GgmlType, ggml: ctypes.CDLL) -> Quantize:
    function = library[f"airpack_{kind.name.lower()}"]
    function.restype = None
    function.argtypes = (
        ctypes.c_void_p,  # ggml_quantize_chunk, for blocks of unusual values
        ctypes.c_void_p,  # source, float32
        ctypes.c_void_p,  # target
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # elements of a row
        ctypes.c_void_p,  # importance matrix
    )
    return partial(function, ctypes.cast(ggml.ggml_quantize_chunk, ctypes.c_void_p))


def _halves(library: ctypes.CDLL) -> Halves:
    widen, are_finite = library.airpack_widen_f16, library.airpack_f16_are_finite
    widen.restype = None
    widen.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    are_finite.restype = ctypes.c_bool
    are_finite.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    return Halves(widen, are_finite)
