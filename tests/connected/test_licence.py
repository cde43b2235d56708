"""The licence that a card states."""

from __future__ import annotations

import pytest

from packager.connected.licence import licence_of


@pytest.mark.parametrize(
    "name", ["apache-2.0", "MIT", "cc-by-4.0", "cc0-1.0", "gpl-3.0", "bsd-3-clause", "openrail++"]
)
def test_a_licence_of_ones_own_called_as_a_well_known_one_is_not_that_one(name: str) -> None:
    assert licence_of(f"---\nlicense: other\nlicense_name: {name}\n---\n".encode()) == "other"
    assert licence_of(f"---\nlicense: {name}\n---\n".encode()) == name.lower()


@pytest.mark.parametrize("name", ["qwen-research", "llama3", "mrl", "ccl", "gemma"])
def test_a_licence_that_the_hub_has_no_id_for_is_known_by_its_name(name: str) -> None:
    assert licence_of(f"---\nlicense: other\nlicense_name: {name}\n---\n".encode()) == name
