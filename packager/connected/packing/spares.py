"""Second copies of the small files that no other copy could stand in for.

One bad sector must not cost a second trip. The wheels and the setup files lie in the payload
too; the index, the sums and what a person reads first get a second copy beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packager.format.sums import spare_name
from packager.store.atomic import read_capped, write_file

_MAX_SIZE = 1 << 30  # far above any small file's own limit


def write_spares(directory: Path, names: Iterable[str]) -> None:
    """Write a second copy of each of the files ``names`` of ``directory``."""
    for name in names:
        write_file(directory / spare_name(name), read_capped(directory / name, _MAX_SIZE))
