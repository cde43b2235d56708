"""Patterns of a recipe, held against what a shell would match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.format.globs import matches

names = st.text("ab.", min_size=1, max_size=4)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.json", "a.json", True),
        ("*.json", "a/b.json", False),
        ("*/*.json", "a/b.json", True),
        ("**/*.json", "b.json", True),
        ("**/*.json", "a/c/b.json", True),
        ("**", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b/a", False),
        ("**/.x", ".x", True),
        ("*", ".hidden", False),
        ("**", ".git/config", False),
        ("**/x", "a/.b/x", False),
        ("**/x", "a/b/.c/x", False),
        ("**/c/x", "a/b/c/x", True),
        (".a/**", ".a/b/c", True),
        (".*", ".hidden", True),
        ("model-?.x", "model-1.x", True),
        ("LICEN[CS]E", "LICENCE", True),
        ("readme", "README", False),
    ],
)
def test_pattern_matches_as_in_a_shell(pattern: str, path: str, expected: bool) -> None:
    assert matches(path, [pattern]) is expected


@given(paths)
def test_path_without_wildcards_matches_itself_alone(path: str) -> None:
    assert matches(path, [path])
    assert not matches(path + "x", [path])


@given(paths)
def test_two_stars_match_every_path_that_is_not_hidden(path: str) -> None:
    hidden = any(part.startswith(".") for part in path.split("/"))
    assert matches(path, ["**"]) is not hidden


def test_many_stars_do_not_take_exponential_time() -> None:
    assert not matches("/".join(["a"] * 200), ["/".join(["**", "a"] * 100 + ["b"])])
