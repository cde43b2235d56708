"""The library beside the installed engine is the one we think it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from packager.errors import EngineError
from packager.format.ggml_types import BY_NAME, BY_NUMBER
from packager.quantize import kernels
from packager.quantize.kernels import find_library, load_kernels


@pytest.mark.parametrize("number", range(43))
def test_the_types_are_those_of_the_library(number: int) -> None:
    library = ctypes.CDLL(str(find_library()))
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_type_name.restype = ctypes.c_char_p

    size = library.ggml_type_size(number)

    if number not in BY_NUMBER:
        assert size == 0, "a type that the library has and we do not"
        return
    ours = BY_NUMBER[number]
    assert (ours.block, ours.block_size) == (library.ggml_blck_size(number), size)
    assert ours.name.lower() == library.ggml_type_name(number).decode().lower()


def test_the_engine_is_not_imported_for_its_kernels() -> None:
    code = (
        "import sys; from packager.quantize.kernels import load_kernels; load_kernels();"
        "sys.exit('xllamacpp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_infinity_does_not_pass_as_valid() -> None:
    source = np.array([[1.0, 70000.0]], np.float32)
    target = np.empty(4, np.uint8)
    kind = BY_NAME["F16"]
    loaded = load_kernels()

    size = loaded.quantize(kind, source.ctypes.data, target.ctypes.data, rows=1, columns=2)

    assert size == 4
    assert not loaded.is_valid(kind, target.ctypes.data, 2 * kind.block_size)
    assert loaded.is_valid(kind, target.ctypes.data, kind.block_size)


def test_a_missing_engine_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MODULE", "no_such_engine")

    with pytest.raises(EngineError, match="not installed") as caught:
        find_library()
    assert "pip install" in str(caught.value.hint)
