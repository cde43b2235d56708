from __future__ import annotations

import random
from functools import reduce
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.errors import MissingVolumeError
from packager.format.parity import (
    BITS,
    BLOCK_SIZE,
    PACKET_SIZE,
    POLYNOMIAL,
    bit_rows,
    combine,
    inverse,
    multiply,
    parity_matrix,
    recovery,
)

elements = st.integers(0, 255)


def slow_product(a: int, b: int) -> int:
    """Schoolbook: multiply the polynomials, then divide by the field's."""
    product = reduce(lambda total, bit: total ^ (a << bit if b >> bit & 1 else 0), range(BITS), 0)
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= POLYNOMIAL << (bit - 8)
    return product


def blocks(count: int, size: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(size) for _ in range(count)]


def encoded(data: list[bytes], parity: int) -> list[bytes]:
    return data + combine(parity_matrix(len(data), parity), data, len(data[0]))


@given(elements, elements)
def test_multiplication_is_that_of_the_field(a: int, b: int) -> None:
    assert multiply(a, b) == slow_product(a, b)


def test_every_element_but_zero_has_an_inverse() -> None:
    assert all(multiply(a, inverse(a)) == 1 for a in range(1, 256))


@given(elements, elements)
def test_bit_rows_multiply_by_adding_alone(element: int, other: int) -> None:
    bits = [sum(other >> column & 1 for column in row) & 1 for row in bit_rows(element)]
    assert sum(bit << place for place, bit in enumerate(bits)) == multiply(element, other)


def test_the_first_parity_volume_is_plain_xor() -> None:
    data = blocks(3, BLOCK_SIZE)
    [parity] = combine(parity_matrix(3, 1), data, BLOCK_SIZE)
    assert parity == bytes(a ^ b ^ c for a, b, c in zip(*data, strict=True))


def test_packets_hold_the_bits_of_one_column_of_the_field() -> None:
    """Computed bit by bit, as the specification says it, for a few places of a block."""
    data = blocks(4, BLOCK_SIZE)
    matrix = parity_matrix(4, 3)
    results = combine(matrix, data, BLOCK_SIZE)

    def element(block: bytes, byte: int, bit: int) -> int:
        return sum(
            (block[packet * PACKET_SIZE + byte] >> bit & 1) << packet for packet in range(BITS)
        )

    for byte, bit in ((0, 0), (1, 7), (PACKET_SIZE - 1, 3)):
        symbols = [element(block, byte, bit) for block in data]
        for row, result in zip(matrix, results, strict=True):
            total = 0
            for coefficient, symbol in zip(row, symbols, strict=True):
                total ^= multiply(coefficient, symbol)
            assert element(result, byte, bit) == total


@pytest.mark.parametrize(("data", "parity"), [(1, 1), (1, 3), (3, 1), (4, 2), (5, 3), (2, 4)])
def test_any_loss_of_as_many_volumes_as_there_is_parity_is_made_good(
    data: int, parity: int
) -> None:
    volumes = encoded(blocks(data, BLOCK_SIZE), parity)
    for lost in combinations(range(data + parity), parity):
        present = [number for number in range(data + parity) if number not in lost]
        sources, matrix = recovery(data, parity, present, lost)
        found = combine(matrix, (volumes[number] for number in sources), BLOCK_SIZE)
        assert found == [volumes[number] for number in lost]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_shape_survives_any_loss_within_its_distance(draw: st.DataObject) -> None:
    data = draw.draw(st.integers(1, 40), "data")
    parity = draw.draw(st.integers(1, 12), "parity")
    volumes = encoded(blocks(data, BLOCK_SIZE, data), parity)
    numbers = range(data + parity)
    lost = draw.draw(st.lists(st.sampled_from(numbers), max_size=parity, unique=True), "lost")
    present = [number for number in numbers if number not in lost]
    sources, matrix = recovery(data, parity, present, lost)
    found = combine(matrix, (volumes[number] for number in sources), BLOCK_SIZE)
    assert found == [volumes[number] for number in lost]


def test_one_loss_more_than_there_is_parity_is_refused() -> None:
    with pytest.raises(MissingVolumeError, match="3 volumes of a stripe are here; it takes 4"):
        recovery(4, 2, [0, 1, 4], [2, 3])


def test_a_short_block_counts_as_followed_by_zeros() -> None:
    whole, rest = blocks(2, 2 * BLOCK_SIZE)
    short = rest[: BLOCK_SIZE + 1000]
    padded = short.ljust(2 * BLOCK_SIZE, b"\0")
    matrix = parity_matrix(2, 2)
    assert combine(matrix, [whole, short], 2 * BLOCK_SIZE) == combine(
        matrix, [whole, padded], 2 * BLOCK_SIZE
    )


@pytest.mark.parametrize(("data", "parity"), [(0, 1), (1, 0), (255, 1), (200, 56)])
def test_a_shape_the_field_has_no_room_for_is_refused(data: int, parity: int) -> None:
    with pytest.raises(ValueError, match="volumes"):
        parity_matrix(data, parity)


def test_vectors_of_the_specification() -> None:
    assert parity_matrix(3, 2) == ((1, 1, 1), (143, 101, 1))
    assert bit_rows(2) == ((7,), (0,), (1, 7), (2, 7), (3, 7), (4,), (5,), (6,))
