"""Rows of floats to small numbers and scales, as compressed-tensors makes them, bit for bit.

A scale is the largest magnitude that it covers over half the range of the numbers (448 for FP8,
127.5 for 8 bits, 7.5 for 4), as ``calculate_qparams`` has it, rounded to the type of the weights.
A number is the weight over that rounded scale, in float32, cut off at the range and rounded to
even, as ``quantize`` has it for float32: of 16-bit floats it would round the quotient first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packager.quantize.compressed.schemes import FLOAT, Scheme
from packager.quantize.floats import FLOAT_TYPES, Floats, Words, narrow, widen

Bytes = NDArray[np.uint8]

_FP8_LARGEST = 448.0  # of E4M3 without infinities
_FP8_LEAST_NORMAL = np.float32(2.0**-6)
# So few weights stay in a core's cache from one step to the next.
_TILE = 1 << 17


def code_size(scheme: Scheme, columns: int) -> int:
    """Bytes of the numbers of a row of ``columns``."""
    return columns * scheme.bits // 8


def encode_rows(raw: Bytes, dtype: str, columns: int, scheme: Scheme) -> tuple[Bytes, Bytes] | None:
    """The numbers and the scales of the rows in ``raw``, both as bytes, (rows, bytes of a row).

    ``raw`` has whole rows of ``columns`` floats of ``dtype``, which groups of ``scheme`` divide.
    ``None`` where one of them is infinite or not a number.
    """
    kind = FLOAT_TYPES[dtype]
    groups = scheme.groups(columns)
    words: Words = raw.view(kind.word).reshape(-1, groups, columns // groups)
    codes = np.empty((len(words), code_size(scheme, columns)), np.uint8)
    scales = np.empty((len(words), groups), kind.word)
    at_once = max(_TILE // columns, 1)
    for first in range(0, len(words), at_once):
        rows = slice(first, first + at_once)
        # Of floats as integers, the sign apart, the larger ones are the larger integers.
        largest = (words[rows] & kind.word(kind.infinity | (kind.infinity - 1))).max(axis=-1)
        if largest.max() >= kind.infinity:
            return None
        scales[rows] = _scales(largest, dtype, scheme)
        quotients = widen(words[rows], dtype)
        np.divide(quotients, widen(scales[rows], dtype)[:, :, np.newaxis], out=quotients)
        codes[rows] = _round(quotients, scheme).reshape(-1, codes.shape[1])
    return codes, scales.view(np.uint8)


def _scales(largest: Words, dtype: str, scheme: Scheme) -> Words:
    """The scales of groups with these ``largest`` magnitudes, both in words of ``dtype``."""
    half = _FP8_LARGEST if scheme.kind == FLOAT else (2**scheme.bits - 1) / 2
    scales = narrow(widen(largest, dtype) / np.float32(half), dtype)
    for_zeros = narrow(np.array([FLOAT_TYPES[dtype].epsilon], np.float32), dtype)
    return np.where(scales == 0, for_zeros, scales)


def _round(quotients: Floats, scheme: Scheme) -> Bytes:
    """The bytes of numbers that are the ``quotients``, rounded; these are written over."""
    if scheme.kind == FLOAT:
        np.clip(quotients, -_FP8_LARGEST, _FP8_LARGEST, out=quotients)
        return _to_fp8(quotients)
    half = 2 ** (scheme.bits - 1)
    np.clip(quotients, -half, half - 1, out=quotients)
    np.rint(quotients, out=quotients)
    if not scheme.is_packed:
        return quotients.astype(np.int8).view(np.uint8)
    quotients += half
    numbers = quotients.astype(np.uint8)
    if scheme.bits == 8:
        return numbers
    # Of a 32-bit word, the first number is in the lowest bits.
    pairs = numbers.view(np.uint16)
    return (pairs | pairs >> 4).astype(np.uint8)


def _to_fp8(values: Floats) -> Bytes:
    """``values`` of at most 448 as E4M3, rounded to even."""
    magnitudes = np.abs(values)
    bits = magnitudes.view(np.uint32)
    # Normal numbers: three bits of the fraction stay, and the exponent counts from -7, not -127.
    codes = bits + (bits >> 20 & 1)
    codes += 0x7FFFF
    codes >>= 20
    codes -= 120 << 3
    is_less = magnitudes < _FP8_LEAST_NORMAL
    # What is less than they are, is so many times 2 ** -9.
    magnitudes *= 512
    np.copyto(codes, np.rint(magnitudes).astype(np.uint32), where=is_less)
    codes |= values.view(np.uint32) >> 24 & 0x80
    return codes.astype(np.uint8)
