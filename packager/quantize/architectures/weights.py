"""How a tensor of the output is put together from tensors of the source, as a plain statement.

llama.cpp and transformers mostly hold the same matrices under different names. Where they do
not, the rows of an output tensor still come from rows of source tensors: in another order within
each attention head, from one tensor for each expert, or from a part of a tensor in which several
are fused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """``rows`` rows of the source tensor ``name``: the ``pick``-th of every ``step`` rows, from
    row ``first`` on.

    ``name`` is transformers', ``shape`` that of the whole source tensor: (rows, columns),
    (experts, rows, columns), which count as experts * rows rows, or (n,), as n rows of one.
    ``transposed``: (columns, rows) is what the source holds, for these rows. ``scales`` names the
    tensor of scales of a source in MXFP4, whose ``shape`` is (experts, rows, columns // 32, 16):
    bytes of two values each; that of the scales is the same without the last.
    """

    name: str
    shape: Shape
    rows: int
    first: int = 0
    step: int = 1
    pick: int = 0
    transposed: bool = False
    scales: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The source tensors that it is read from."""
        return (self.name,) if self.scales is None else (self.name, self.scales)


@dataclass(frozen=True)
class Weight:
    """The tensor ``name`` (GGUF's) of ``shape``, whose rows are those of ``parts`` one by one.

    A tensor of three dimensions has a part for each expert. ``head_rows`` is the number of rows
    of each attention head whose order changes (see :mod:`packager.quantize.worker`), 0
    where none does. ``plus`` is added to each element. ``by_element``: rows of the parts are
    single elements, though ``shape`` has two dimensions.
    """

    name: str
    shape: Shape
    parts: tuple[Part, ...]
    head_rows: int = 0
    plus: float = 0.0
    by_element: bool = False

    def within(self, ours: str, theirs: str) -> Weight:
        """The same tensor with ``ours`` and ``theirs`` put before the names."""
        parts = tuple(
            replace(
                part,
                name=theirs + part.name,
                scales=None if part.scales is None else theirs + part.scales,
            )
            for part in self.parts
        )
        return replace(self, name=ours + self.name, parts=parts)


def row_count(shape: Shape) -> int:
    """How many rows a tensor of ``shape`` has; one dimension counts as rows of one element."""
    count = shape[0]
    for dimension in shape[1:-1]:
        count *= dimension
    return count


def whole(ours: str, theirs: str, shape: Shape, *, head_rows: int = 0, plus: float = 0.0) -> Weight:
    """A tensor that is all of one source tensor."""
    return Weight(ours, shape, (Part(theirs, shape, row_count(shape)),), head_rows, plus)


def linear(
    ours: str, theirs: str, shape: tuple[int, int], *, bias: bool = False, head_rows: int = 0
) -> Iterable[Weight]:
    """The matrix, (outputs, inputs), and the bias of a linear layer."""
    yield whole(f"{ours}.weight", f"{theirs}.weight", shape, head_rows=head_rows)
    if bias:
        yield whole(f"{ours}.bias", f"{theirs}.bias", shape[:1], head_rows=head_rows)


def stacked(ours: str, theirs: str, count: int, shape: tuple[int, int]) -> Weight:
    """(``count``, rows, columns) of as many matrices; ``theirs`` has {} for their number."""
    parts = tuple(Part(theirs.format(number), shape, shape[0]) for number in range(count))
    return Weight(ours, (count, *shape), parts)


def slice_of_each(
    ours: str, theirs: str, whole_shape: tuple[int, int, int], rows: int, *, first: int = 0
) -> Weight:
    """(count, ``rows``, columns): some rows, from ``first`` on, of each matrix of ``theirs``."""
    count, all_rows, columns = whole_shape
    parts = tuple(
        Part(theirs, whole_shape, rows, first=number * all_rows + first) for number in range(count)
    )
    return Weight(ours, (count, rows, columns), parts)
