"""What a tensor of ggml's graph is, read where it lies in memory.

``struct ggml_tensor`` (``ggml/include/ggml.h``) has no accessors for its dimensions and sources.
:func:`check_layout` compares what is read with what ggml's own functions say, so that another
layout is noticed and not guessed at.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packager.errors import EngineError

F32, I32 = 0, 26

_NE, _NB, _SOURCES, _DATA, _NAME = 16, 48, 152, 248, 256
_ITEM = {F32: np.dtype("<f4"), I32: np.dtype("<i4")}


@dataclass(frozen=True)
class Tensors:
    """Reads the tensors of one loaded engine. A tensor is an address."""

    library: ctypes.CDLL

    def declare(self) -> None:
        """Tell ctypes what the functions used here take and give."""
        library, pointer = self.library, ctypes.c_void_p
        library.ggml_get_name.argtypes = library.ggml_op_desc.argtypes = (pointer,)
        library.ggml_get_name.restype = library.ggml_op_desc.restype = ctypes.c_char_p
        library.ggml_nelements.argtypes = library.ggml_nbytes.argtypes = (pointer,)
        library.ggml_nelements.restype = ctypes.c_int64
        library.ggml_nbytes.restype = ctypes.c_size_t
        library.ggml_get_data.argtypes, library.ggml_get_data.restype = (pointer,), pointer
        get = library.ggml_backend_tensor_get
        get.argtypes, get.restype = (pointer, pointer, ctypes.c_size_t, ctypes.c_size_t), None

    def check_layout(self, tensor: int) -> None:
        """Raise ``EngineError`` unless ``tensor`` is laid out as this module takes it to be."""
        library = self.library
        seen = ctypes.string_at(tensor + _NAME)
        data = ctypes.c_void_p.from_address(tensor + _DATA).value
        elements = int(np.prod(self.shape(tensor)))
        if (
            seen != library.ggml_get_name(tensor)
            or data != library.ggml_get_data(tensor)
            or elements != library.ggml_nelements(tensor)
        ):
            raise EngineError("this version of the engine keeps its tensors in another form")

    def operation(self, tensor: int) -> bytes:
        """What computes it, as ``MUL_MAT``."""
        return bytes(self.library.ggml_op_desc(tensor) or b"")

    def name(self, tensor: int) -> bytes:
        """Its name; a copy on another device is called ``device#name#0``."""
        name = bytes(self.library.ggml_get_name(tensor) or b"")
        return name.split(b"#")[1] if name.count(b"#") >= 2 else name

    def kind(self, tensor: int) -> int:
        """The number of its type."""
        return int(ctypes.c_int.from_address(tensor).value)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Its four dimensions, the outermost first."""
        return tuple(reversed((ctypes.c_int64 * 4).from_address(tensor + _NE)))

    def source(self, tensor: int, index: int) -> int:
        """The tensor it is computed from, by position."""
        return int(ctypes.c_void_p.from_address(tensor + _SOURCES + 8 * index).value or 0)

    def values(self, tensor: int) -> NDArray[np.generic]:
        """A copy of its content, float32 or int32 in its four dimensions."""
        item = _ITEM[self.kind(tensor)]
        size = self.library.ggml_nbytes(tensor)
        buffer = np.empty(size, np.uint8)
        self.library.ggml_backend_tensor_get(tensor, buffer.ctypes.data, 0, size)
        strides = tuple(reversed((ctypes.c_size_t * 4).from_address(tensor + _NB)))
        content: NDArray[np.generic] = np.ndarray(self.shape(tensor), item, buffer, 0, strides)
        return content
