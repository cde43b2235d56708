"""docs/BAD_INPUTS.md is true: every case has its line, and the tests that it names are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "name_tests_of_bad_inputs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("name_tests_of_bad_inputs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> dict[int, list[str]]:
    """What each line of the tables says, by the number of the case."""
    text = (ROOT / "docs" / "BAD_INPUTS.md").read_text(encoding="utf-8")
    found = [row.split(" | ") for row in re.findall(r"^\| (\d+ \|.*) \|$", text, re.MULTILINE)]
    assert len({row[0] for row in found}) == len(found)
    return {int(number): cells for number, *cells in found}


def test_every_case_has_its_line(script: ModuleType, rows: dict[int, list[str]]) -> None:
    assert list(rows) == list(script.CASES)
    assert all(len(cells) == 4 for cells in rows.values())


def test_every_test_that_is_named_is_there_and_is_of_its_case(
    script: ModuleType, rows: dict[int, list[str]]
) -> None:
    tests = script.find_tests()
    for case, (*_, named) in rows.items():
        listed = re.findall(r"`([^`]+)`", named)
        assert listed or named == script.NOT_YET, case
        missing = [test for test in listed if test not in tests.get(case, [])]
        assert missing == [], "run scripts/name_tests_of_bad_inputs.py"


def test_a_case_that_has_tests_does_not_go_without(
    script: ModuleType, rows: dict[int, list[str]]
) -> None:
    for case in script.find_tests():
        assert rows[case][3] != script.NOT_YET, "run scripts/name_tests_of_bad_inputs.py"


def test_files_that_are_said_to_refuse_are_there(rows: dict[int, list[str]]) -> None:
    for case, (_, where, *_) in rows.items():
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", where):
            assert (ROOT / "packager" / path).exists(), (case, path)


@pytest.mark.parametrize(
    ("numbers", "cases"),
    [("53", {53}), ("55_56", {55, 56}), ("34_to_37", {34, 35, 36, 37}), ("97_429", {97})],
)
def test_the_numbers_in_a_name_mean_cases(
    script: ModuleType, numbers: str, cases: set[int]
) -> None:
    assert script.cases_of(numbers) == cases
