"""Quantization: llama.cpp's own, in xllamacpp's shared object, or compiled here to the same bytes.

``ggml_quantize_chunk`` turns rows of float32 into any tensor type; the kernels of
:mod:`packager.quantize.simd` do some of them several times as fast. ctypes lets go of the
interpreter's lock meanwhile, so threads really run side by side. The engine's module itself is
not imported: it would start a whole engine.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packager.errors import EngineError
from packager.format.ggml_types import BY_NAME, GgmlType
from packager.quantize.simd.compiled import Compiled, load_compiled

_MODULE = "xllamacpp"
_F16 = BY_NAME["F16"]


@dataclass(frozen=True)
class Kernels:
    """ggml in the engine's ``library``, and what was ``compiled`` to stand in for it."""

    library: ctypes.CDLL
    compiled: Compiled

    def quantize(
        self,
        kind: GgmlType,
        source: int,
        target: int,
        *,
        rows: int,
        columns: int,
        matrix: int | None = None,
    ) -> int:
        """Write ``rows`` rows at address ``target`` as ``kind``; returns their bytes.

        ``source`` is the address of float32 (rows, columns), ``matrix`` that of float32
        (columns,): how much each column matters. The rows must be whole blocks: ggml ends the
        process otherwise.
        """
        if own := self.compiled.functions.get(kind):
            own(source, target, rows, columns, matrix)
            return kind.row_size(rows * columns)
        return int(
            self.library.ggml_quantize_chunk(kind.number, source, target, 0, rows, columns, matrix)
        )

    def widen_f16(self, source: int, target: int, count: int) -> None:
        """Write ``count`` half-precision numbers at address ``source`` as float32."""
        halves = self.compiled.halves
        widen = halves.widen if halves else self.library.ggml_fp16_to_fp32_row
        widen(source, target, count)

    def is_valid(self, kind: GgmlType, target: int, size: int) -> bool:
        """Whether no value, nor any block's scale, became infinite or not a number."""
        if kind == _F16 and self.compiled.halves:
            return self.compiled.halves.are_finite(target, size // kind.block_size)
        return bool(self.library.ggml_validate_row_data(kind.number, target, size))


@cache
def load_kernels() -> Kernels:
    """Load the shared object beside the installed xllamacpp; raises ``EngineError``."""
    path = find_library()
    try:
        _load_carried_libgomp()
        library = ctypes.CDLL(str(path))
        chunk, validate = library.ggml_quantize_chunk, library.ggml_validate_row_data
        widen = library.ggml_fp16_to_fp32_row
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"{path}: cannot be loaded: {error}",
            hint="on Debian: apt install libgomp1; else reinstall xllamacpp",
        ) from None
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = (
        ctypes.c_int,  # type
        ctypes.c_void_p,  # source, float32
        ctypes.c_void_p,  # target
        ctypes.c_int64,  # first element
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # elements of a row
        ctypes.c_void_p,  # importance matrix
    )
    validate.restype = ctypes.c_bool
    validate.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    widen.restype = None
    widen.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return Kernels(library, load_compiled(library))


def _load_carried_libgomp() -> None:
    """Load the OpenMP runtime kept in this environment, where there is one: hosts may lack it."""
    carried = Path(sys.prefix) / "lib" / "airpack" / "libgomp.so.1"
    if carried.is_file():
        ctypes.CDLL(str(carried), mode=ctypes.RTLD_GLOBAL)


def find_library() -> Path:
    """The shared object of the installed xllamacpp; raises ``EngineError`` without one."""
    spec = importlib.util.find_spec(_MODULE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob(f"{_MODULE}*.so")):
            return path
    raise EngineError(
        "xllamacpp is not installed, and with it llama.cpp's quantization",
        hint="pip install 'airpack[build]'",
    )
