"""Parity across volumes: a Cauchy Reed-Solomon code, computed with XOR alone.

Of ``data`` volumes and ``parity`` volumes any ``data`` rebuild the others. The code works on
stripes: block b of every volume, a block being 64 KiB of eight packets. A volume's coefficient is
an element of GF(2^8), and as an 8 x 8 matrix over GF(2) it says which packets of the volume's
block are added (XOR) to which packet of the result; no multiplication is left.

Sources: J. Bloemer et al., "An XOR-Based Erasure-Resilient Coding Scheme", ICSI TR-95-048 (the
bit matrices); J. S. Plank and L. Xu, "Optimizing Cauchy Reed-Solomon Codes for Fault-Tolerant
Network Storage Applications", NCA 2006 (rows scaled to have few ones).

Packets are Python's own integers: it XORs them as fast as memory gives them, so that this needs
no array library and crosses the gap as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from packager.errors import MissingVolumeError

POLYNOMIAL = 0x11D  # x^8 + x^4 + x^3 + x^2 + 1, primitive
BITS = 8
PACKET_SIZE = 8 << 10
BLOCK_SIZE = BITS * PACKET_SIZE
_MOST_AT_ONCE = 32 << 20  # bytes of sums in memory
MAX_VOLUMES_WITH_PARITY = 255  # of both kinds together: distinct points of GF(2^8), one kept back

Matrix = tuple[tuple[int, ...], ...]
"""Elements of GF(2^8), row by row."""


def _powers() -> tuple[int, ...]:
    """The powers of the primitive element 2, twice around, so that no exponent needs reducing."""
    powers = [1]
    for _ in range(2 * 255 - 1):
        doubled = powers[-1] << 1
        powers.append(doubled ^ POLYNOMIAL if doubled & 0x100 else doubled)
    return tuple(powers)


_POWER = _powers()
_LOGARITHM = {power: exponent for exponent, power in enumerate(_POWER[:255])}


def multiply(a: int, b: int) -> int:
    """The product of two elements."""
    return _POWER[_LOGARITHM[a] + _LOGARITHM[b]] if a and b else 0


def inverse(a: int) -> int:
    """The element whose product with ``a``, which is not 0, is 1."""
    return _POWER[255 - _LOGARITHM[a]]


@cache
def bit_rows(element: int) -> tuple[tuple[int, ...], ...]:
    """For each bit of a product with ``element``, the bits of the other factor it is the sum of."""
    columns = [multiply(element, 1 << bit) for bit in range(BITS)]
    return tuple(
        tuple(column for column in range(BITS) if columns[column] >> row & 1) for row in range(BITS)
    )


def _ones(element: int) -> int:
    return sum(map(len, bit_rows(element)))


@cache
def parity_matrix(data: int, parity: int) -> Matrix:
    """The coefficients: (``parity``, ``data``).

    The Cauchy matrix of the points 0..parity-1 and parity..parity+data-1, each column divided by
    its first element, so that the first row is plain XOR, and each further row by that of its
    elements which leaves the fewest ones (the first such).
    """
    if data < 1 or parity < 1 or data + parity > MAX_VOLUMES_WITH_PARITY:
        raise ValueError(f"{data} + {parity} volumes: there may be {MAX_VOLUMES_WITH_PARITY}")
    cauchy = [[inverse(row ^ (parity + column)) for column in range(data)] for row in range(parity)]
    first = [inverse(element) for element in cauchy[0]]
    rows = [[multiply(e, f) for e, f in zip(row, first, strict=True)] for row in cauchy]
    return tuple(_lightest(row) for row in rows)


def _lightest(row: Sequence[int]) -> tuple[int, ...]:
    candidates = (tuple(multiply(e, inverse(d)) for e in row) for d in dict.fromkeys(row))
    return min(candidates, key=lambda scaled: sum(map(_ones, scaled)))


def recovery(
    data: int, parity: int, present: Iterable[int], wanted: Sequence[int]
) -> tuple[tuple[int, ...], Matrix]:
    """How to rebuild the volumes ``wanted`` from some of those ``present``.

    Volumes are numbered from 0, the parity volumes behind the others. Returns the ``data`` numbers
    to read and the coefficients, (wanted, read). Raises ``MissingVolumeError`` where too few are
    present.
    """
    sources = sorted(set(present))[:data]
    if len(sources) < data:
        raise MissingVolumeError(f"{len(sources)} volumes of a stripe are here; it takes {data}")
    generator = (*_identity(data), *parity_matrix(data, parity))
    inverted = _invert([list(generator[number]) for number in sources])
    return tuple(sources), tuple(
        tuple(_dot(generator[number], column) for column in zip(*inverted, strict=True))
        for number in wanted
    )


def tile_size(chunk_size: int, results: int) -> int:
    """How many bytes of a chunk to combine at once, so that ``results`` sums stay small."""
    size = chunk_size
    while size > BLOCK_SIZE and size * results > _MOST_AT_ONCE:
        size //= 2
    return size


def combine(matrix: Matrix, blocks: Iterable[bytes], size: int) -> list[bytes]:
    """The sums of ``blocks`` times ``matrix``, (results, blocks); each of ``size`` bytes.

    A block shorter than ``size`` counts as followed by zeros; ``size`` is a multiple of 64 KiB.
    """
    tiles = size // BLOCK_SIZE
    sums = [[[0] * BITS for _ in range(tiles)] for _ in matrix]
    for column, block in enumerate(blocks):
        parts = [bit_rows(row[column]) if row[column] else None for row in matrix]
        for tile in range(-(-len(block) // BLOCK_SIZE)):
            packets = _packets(block, tile * BLOCK_SIZE)
            for result, part in zip(sums, parts, strict=True):
                if part is not None:
                    _add(result[tile], packets, part)
    return [
        b"".join(packet.to_bytes(PACKET_SIZE, "little") for tile in result for packet in tile)
        for result in sums
    ]


def _packets(block: bytes, begin: int) -> list[int]:
    return [
        int.from_bytes(block[start : start + PACKET_SIZE], "little")
        for start in range(begin, begin + BLOCK_SIZE, PACKET_SIZE)
    ]


def _add(result: list[int], packets: list[int], rows: tuple[tuple[int, ...], ...]) -> None:
    for bit, columns in enumerate(rows):
        total = result[bit]
        for column in columns:
            total ^= packets[column]
        result[bit] = total


def _identity(size: int) -> Matrix:
    return tuple(tuple(int(row == column) for column in range(size)) for row in range(size))


def _dot(row: Sequence[int], column: Sequence[int]) -> int:
    total = 0
    for a, b in zip(row, column, strict=True):
        total ^= multiply(a, b)
    return total


def _invert(matrix: list[list[int]]) -> Matrix:
    """Gauss and Jordan. Any square part of this generator has an inverse."""
    size = len(matrix)
    rows = [[*row, *unit] for row, unit in zip(matrix, _identity(size), strict=True)]
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factor = inverse(rows[column][column])
        rows[column] = [multiply(factor, e) for e in rows[column]]
        for other in range(size):
            scale = rows[other][column]
            if other != column and scale:
                rows[other] = [
                    e ^ multiply(scale, p) for e, p in zip(rows[other], rows[column], strict=True)
                ]
    return tuple(tuple(row[size:]) for row in rows)
