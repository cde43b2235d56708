"""The compiled kernels give ggml's bytes for every value, or are not used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.format.ggml_types import BY_NAME, GgmlType
from packager.quantize.kernels import Kernels, load_kernels
from packager.quantize.simd.compiled import KINDS, load_compiled
from packager.quantize.simd.compiling import VECTORS, find_vectors

MANY = settings(max_examples=40, deadline=None)

# What ``values`` makes of a block of 256, from random numbers and a scale.
PATTERNS = {
    "normal": lambda random, scale: random.standard_normal(256) * scale,
    "positive": lambda random, scale: np.abs(random.standard_normal(256)) * scale,
    "negative": lambda random, scale: -np.abs(random.standard_normal(256)) * scale,
    "constant": lambda _, scale: np.full(256, scale),
    "zeros": lambda random, _: random.choice([0.0, -0.0], 256),
    "few values": lambda random, scale: random.choice([-1.0, -0.0, 0.0, 0.5, 1.0], 256) * scale,
    "nearly constant": lambda random, scale: (1 + random.integers(-3, 4, 256) * 6e-8) * scale,
    "ramp": lambda _, scale: np.linspace(-scale, scale, 256),
    "mostly zeros": lambda random, scale: (random.random(256) < 0.05) * scale,
    "outliers": lambda random, scale: (
        random.standard_normal(256) * scale * np.where(random.random(256) < 0.03, 1e6, 1)
    ),
    "every magnitude": lambda random, _: (
        10.0 ** random.uniform(-45, 38, 256) * random.choice([-1, 1], 256)
    ),
    "denormals": lambda random, _: random.integers(-9, 9, 256) * 1.5e-45,
    "not finite": lambda random, scale: np.where(
        random.random(256) < 0.01, random.choice([np.nan, -np.nan, np.inf, -np.inf], 256), scale
    ),
    "any bits": lambda random, _: random.bytes(1024),
}


@st.composite
def values(draw: st.DrawFn, rows: int, columns: int) -> np.ndarray:
    """Float32 (rows, columns), each block of 256 of a pattern and a scale of its own."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(st.sampled_from(sorted(PATTERNS)), min_size=1, max_size=4))
    usual = st.floats(-6, 3)
    scales = draw(st.lists(usual | st.floats(-45, 38), min_size=1, max_size=4))
    blocks = []
    for index in range(rows * columns // 256 + 1):
        with np.errstate(all="ignore"):
            scale = 10.0 ** scales[index % len(scales)]
            block = PATTERNS[names[index % len(names)]](random, scale)
            is_bits = isinstance(block, bytes)
            blocks.append(np.frombuffer(block, np.float32) if is_bits else block.astype(np.float32))
    return np.concatenate(blocks)[: rows * columns].reshape(rows, columns)


@st.composite
def matrices(draw: st.DrawFn, columns: int) -> np.ndarray | None:
    """How much each of ``columns`` columns matters, float32, or nothing about it."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["none", "usual", "zeros", "wide", "signed", "not finite"]))
    weights = random.random(columns) ** 4 * 10.0 ** draw(st.floats(-10, 10))
    if kind == "none":
        return None
    if kind == "zeros":
        weights *= random.random(columns) < 0.5
    elif kind == "wide":
        weights = 10.0 ** random.uniform(-45, 38, columns)
    elif kind == "signed":
        weights -= weights.mean()
    elif kind == "not finite":
        weights[random.integers(0, columns, 3)] = [np.nan, np.inf, -1e38]
    return weights.astype(np.float32)


@pytest.fixture(scope="module", params=[vectors.name for vectors in VECTORS])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Kernels for each kind of vectors that this CPU has."""
    vectors = next(vectors for vectors in VECTORS if vectors.name == request.param)
    if len(vectors.flags) > len(find_vectors().flags):
        pytest.skip(f"this CPU has no {vectors.name}")
    if not shutil.which("cc"):
        pytest.skip("no C compiler, and so ggml's own kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRPACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        library = load_kernels().library
        return Kernels(library, load_compiled(library, vectors))


def assert_bytes_are_ggmls(
    kernels: Kernels, kind: GgmlType, rows: np.ndarray, matrix: np.ndarray | None
) -> None:
    height, width = rows.shape
    weights = None if matrix is None else matrix.ctypes.data
    ours = np.full(kind.row_size(rows.size) + 64, 0xA5, np.uint8)
    theirs = ours.copy()

    size = kernels.quantize(
        kind, rows.ctypes.data, ours.ctypes.data, rows=height, columns=width, matrix=weights
    )

    expected = kernels.library.ggml_quantize_chunk(
        kind.number, rows.ctypes.data, theirs.ctypes.data, 0, height, width, weights
    )
    assert size == expected
    np.testing.assert_array_equal(ours, theirs)  # and nothing behind them


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@MANY
@given(data=st.data())
def test_every_bit_is_ggmls(kernels: Kernels, kind: GgmlType, data: st.DataObject) -> None:
    assert kind in kernels.compiled.functions
    columns = kind.block * data.draw(st.integers(1, 8 if kind.block == 256 else 40), "blocks")
    rows = data.draw(st.integers(1, 21), "rows")

    assert_bytes_are_ggmls(
        kernels, kind, data.draw(values(rows, columns)), data.draw(matrices(columns))
    )


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(max_examples=2000, deadline=None)
@given(data=st.data())
def test_every_bit_is_ggmls_in_many_more_cases(
    kernels: Kernels, kind: GgmlType, data: st.DataObject
) -> None:
    columns = 256 * data.draw(st.integers(1, 8))
    rows = data.draw(st.integers(1, 21))

    assert_bytes_are_ggmls(
        kernels, kind, data.draw(values(rows, columns)), data.draw(matrices(columns))
    )


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63])
def test_half_precision_of_any_length_is_read_as_numpy_reads_it(
    kernels: Kernels, count: int
) -> None:
    halves = np.random.default_rng(count).standard_normal(count).astype(np.float16)
    wide = np.zeros(count + 8, np.float32)

    kernels.widen_f16(halves.ctypes.data, wide.ctypes.data, count)

    np.testing.assert_array_equal(wide, np.append(halves.astype(np.float32), np.zeros(8)))


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu avx avx2 f16c fma", "AVX2"),
        ("avx2 f16c avx512f avx512bw avx512dq avx512vl", "AVX-512"),
        ("avx2 f16c avx512f avx512cd", "AVX2"),
    ],
)
def test_the_widest_vectors_that_a_cpu_has_all_of_are_used(
    flags: str, name: str, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: x\n")

    assert find_vectors(cpuinfo).name == name


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0xFC01, 0x7BFF, 0xFBFF, 0x0001])
@pytest.mark.parametrize("place", [0, 31, 40])
def test_one_half_that_is_not_finite_is_found_wherever_it_is(
    kernels: Kernels, bits: int, place: int
) -> None:
    halves = np.full(41, 0x3C00, np.uint16)
    halves[place] = bits

    found = kernels.is_valid(BY_NAME["F16"], halves.ctypes.data, halves.nbytes)

    assert found == bool(np.isfinite(halves.view(np.float16)).all())
    assert found == kernels.library.ggml_validate_row_data(1, halves.ctypes.data, halves.nbytes)
