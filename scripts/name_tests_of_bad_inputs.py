"""Write the last column of the tables in docs/BAD_INPUTS.md: the tests that are named after a case.

    python scripts/name_tests_of_bad_inputs.py

A test is of case 53 if it is called test_53_..., of several if test_55_56_... or test_34_to_47_....
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "docs" / "BAD_INPUTS.md"
CASES = range(1, 110)
NOT_YET = "not yet"

_TEST = re.compile(r"^def (test_(\d{2,3}(?:_(?:to_|and_)?\d{2,3})*)_\w+)", re.MULTILINE)
_ROW = re.compile(r"^(\| (\d+) \|.*\|)[^|\n]*\|$", re.MULTILINE)
_AMOUNT = re.compile(r"test_\d+_(gb|gib|mib|kib)_")


def cases_of(numbers: str) -> set[int]:
    """The cases that the ``numbers`` of a test's name mean: 55_56, 34_to_47."""
    cases: set[int] = set()
    for part in re.findall(r"\d+_to_\d+|\d+", numbers):
        first, _, last = part.partition("_to_")
        cases.update(range(int(first), int(last or first) + 1))
    return cases.intersection(CASES)


def find_tests() -> Mapping[int, list[str]]:
    """The tests of each case, as ``tests/format/test_sums.py::test_...``, in order."""
    found = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, numbers in _TEST.findall(path.read_text(encoding="utf-8")):
            for case in [] if _AMOUNT.match(name) else sorted(cases_of(numbers)):
                found[case].append(f"{path.relative_to(ROOT).as_posix()}::{name}")
    return found


def column(tests: list[str]) -> str:
    """One test of each folder, or that there is none."""
    shown = {test.split("/")[1]: test for test in reversed(tests)}
    return ", ".join(f"`{shown[folder]}`" for folder in sorted(shown)) or NOT_YET


def rewritten(text: str, tests: Mapping[int, list[str]]) -> str:
    """The document ``text`` with the last column as it should be."""
    return _ROW.sub(lambda row: f"{row[1]} {column(tests.get(int(row[2]), []))} |", text)


if __name__ == "__main__":
    TABLES.write_text(rewritten(TABLES.read_text(encoding="utf-8"), find_tests()), encoding="utf-8")
