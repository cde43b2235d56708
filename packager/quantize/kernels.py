"""llama.cpp's own quantization, called in xllamacpp's shared object.

``ggml_quantize_chunk`` turns rows of float32 into any tensor type; ctypes lets go of the
interpreter's lock meanwhile, so threads really run side by side. The module itself is not
imported: it would start a whole engine.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packager.errors import EngineError
from packager.format.ggml_types import GgmlType

_MODULE = "xllamacpp"


@dataclass(frozen=True)
class Kernels:
    """The functions of one loaded library."""

    library: ctypes.CDLL

    def quantize(self, kind: GgmlType, source: int, target: int, *, rows: int, columns: int) -> int:
        """Write ``rows`` rows at address ``target`` as ``kind``; returns their bytes.

        ``source`` is the address of float32 (rows, columns). The rows must be whole blocks:
        ggml ends the process otherwise.
        """
        return int(
            self.library.ggml_quantize_chunk(kind.number, source, target, 0, rows, columns, None)
        )

    def is_valid(self, kind: GgmlType, target: int, size: int) -> bool:
        """Whether no value, nor any block's scale, became infinite or not a number."""
        return bool(self.library.ggml_validate_row_data(kind.number, target, size))


@cache
def load_kernels() -> Kernels:
    """Load the shared object beside the installed xllamacpp; raises ``EngineError``."""
    path = find_library()
    try:
        _load_carried_libgomp()
        library = ctypes.CDLL(str(path))
        chunk, validate = library.ggml_quantize_chunk, library.ggml_validate_row_data
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
    return Kernels(library)


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
