"""Numbers and scales: those that compressed-tensors makes, and as near as they can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import REFERENCES, encode
from support.compressed import FP8_VALUES, unpack

from packager.errors import UsageError
from packager.quantize.compressed.encoding import encode_rows
from packager.quantize.compressed.schemes import SCHEMES, find_scheme
from packager.quantize.floats import FLOAT_TYPES, narrow, widen

EXPECTED = np.load(REFERENCES / "compressed-tensors.npz")
COLUMNS = 256
# Root of the mean square error over that of normally distributed weights.
LARGEST_ERROR = {"FP8_DYNAMIC": 0.03, "W8A8": 0.012, "W8A16": 0.0075, "W4A16": 0.12}


def as_floats(raw: np.ndarray, dtype: str) -> np.ndarray:
    return widen(raw.view(FLOAT_TYPES[dtype].word), dtype)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_numbers_and_scales_are_those_of_the_library_bit_for_bit(dtype: str, name: str) -> None:
    encoded = encode_rows(EXPECTED[dtype].reshape(-1), dtype, COLUMNS, find_scheme(name))

    assert encoded is not None
    numbers, scales = encoded
    assert np.array_equal(scales, EXPECTED[f"{dtype}.{name}.scales"])
    assert np.array_equal(numbers, EXPECTED[f"{dtype}.{name}.numbers"])


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_the_error_of_normally_distributed_weights_is_bounded(dtype: str, name: str) -> None:
    scheme = find_scheme(name)
    random = np.random.default_rng(5)
    raw = np.frombuffer(
        encode(random.standard_normal((64, 4096), np.float32) * 0.02, dtype), np.uint8
    )
    weights = as_floats(raw, dtype).reshape(64, 4096)

    encoded = encode_rows(raw, dtype, 4096, scheme)

    assert encoded is not None
    numbers, scales = encoded
    if scheme.is_packed:
        values = unpack(numbers.view("<i4"), scheme.bits).astype(np.float32)
    else:
        values = FP8_VALUES[numbers] if name == "FP8_DYNAMIC" else numbers.view(np.int8)
    by_group = as_floats(scales, dtype)[:, :, np.newaxis]
    found = (values.reshape(64, by_group.shape[1], -1) * by_group).reshape(64, 4096)
    error = np.sqrt(np.mean((found - weights) ** 2) / np.mean(weights**2))
    assert error <= LARGEST_ERROR[name]


def test_every_fp8_value_stays_and_the_middle_of_two_goes_to_the_even_one() -> None:
    finite = [code for code in range(256) if code & 127 != 127]
    # With a largest magnitude of 448 the scale is 1.
    row = np.concatenate([FP8_VALUES[finite], np.zeros(256 - len(finite), np.float32)])
    positive = np.arange(126)
    middles = np.full(256, 448, np.float32)
    middles[:126] = (FP8_VALUES[positive] + FP8_VALUES[positive + 1]) / 2

    encoded = encode_rows(
        np.stack([row, middles]).view(np.uint8).reshape(-1), "F32", 256, find_scheme("FP8_DYNAMIC")
    )

    assert encoded is not None
    assert encoded[0][0, : len(finite)].tolist() == finite
    assert encoded[0][1, :126].tolist() == [code + code % 2 for code in positive]


@given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=32))
def test_an_fp8_number_is_the_nearest_there_is(values: list[float]) -> None:
    row = np.zeros(128, np.float32)
    row[: len(values)] = values
    row[-1] = 448

    encoded = encode_rows(row.view(np.uint8), "F32", 128, find_scheme("FP8_DYNAMIC"))

    assert encoded is not None
    finite = FP8_VALUES[~np.isnan(FP8_VALUES)].astype(np.float64)
    for value, code in zip(row, encoded[0][0], strict=True):
        assert abs(FP8_VALUES[code] - np.float64(value)) == np.abs(finite - value).min()


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_infinity_and_not_a_number_are_told(dtype: str, name: str, broken: float) -> None:
    values = np.ones((300, COLUMNS), np.float32)
    values[299, 200] = broken
    words = values.view(np.uint32)
    stored = {
        "BF16": (words >> 16).astype(np.uint16),
        "F16": values.astype(np.float16).view(np.uint16),
        "F32": words,
    }[dtype]

    assert encode_rows(stored.view(np.uint8).reshape(-1), dtype, COLUMNS, find_scheme(name)) is None


@pytest.mark.parametrize("name", SCHEMES)
def test_rows_alone_and_together_are_the_same(name: str) -> None:
    """Rows of a large tensor are encoded some at a time."""
    random = np.random.default_rng(7)
    values = random.standard_normal((40, 4096), np.float32)
    scheme = find_scheme(name)

    together = encode_rows(values.view(np.uint8).reshape(-1), "F32", 4096, scheme)

    assert together is not None
    for number, row in enumerate(values):
        alone = encode_rows(row.view(np.uint8), "F32", 4096, scheme)
        assert alone is not None
        assert np.array_equal(alone[0][0], together[0][number])
        assert np.array_equal(alone[1][0], together[1][number])


@given(st.floats(0, 65504, width=32))
def test_rounding_to_a_narrower_float_is_to_the_nearest(value: float) -> None:
    for dtype in ("BF16", "F16"):
        word = narrow(np.array([value], np.float32), dtype)
        around = [word, word + word.dtype.type(1), word - word.dtype.type(word[0] > 0)]
        found, *others = (float(widen(each, dtype)[0]) for each in around)
        assert all(abs(found - value) <= abs(other - value) for other in others)


def test_an_unknown_scheme_is_refused_with_those_known() -> None:
    with pytest.raises(UsageError, match="'W5A16' is not a scheme") as caught:
        find_scheme("W5A16")

    assert caught.value.hint == "choose of FP8_DYNAMIC, W8A8, W8A16, W4A16"
