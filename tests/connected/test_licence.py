"""The licence that a card states, and its text."""

from __future__ import annotations

from importlib.metadata import distribution

import pytest
from support.watching import Watching

from packager.connected.evidence.licence import find_licence, licence_of, stated_licence
from packager.errors import PolicyError
from packager.progress import Silent

APACHE, MIT = (
    str(distribution(package).read_text(f"licenses/{name}")).encode()
    for package, name in (("packaging", "LICENSE.APACHE"), ("pyyaml", "LICENSE"))
)


@pytest.mark.parametrize(
    "name", ["apache-2.0", "MIT", "cc-by-4.0", "cc0-1.0", "gpl-3.0", "bsd-3-clause", "openrail++"]
)
def test_a_licence_of_ones_own_called_as_a_well_known_one_is_not_that_one(name: str) -> None:
    assert licence_of(f"---\nlicense: other\nlicense_name: {name}\n---\n".encode()) == "other"
    assert licence_of(f"---\nlicense: {name}\n---\n".encode()) == name.lower()


@pytest.mark.parametrize("name", ["qwen-research", "llama3", "mrl", "ccl", "gemma"])
def test_a_licence_that_the_hub_has_no_id_for_is_known_by_its_name(name: str) -> None:
    assert licence_of(f"---\nlicense: other\nlicense_name: {name}\n---\n".encode()) == name


def described(card: str | None, text: bytes | None = None) -> dict[str, bytes]:
    files = {"README.md": f"---\nlicense: {card}\n---\n".encode()} if card else {}
    return files | ({"LICENSE": text} if text is not None else {})


@pytest.mark.parametrize(
    "name", ["LICENSE", "LICENCE.txt", "license.md", "MODEL_LICENSE", "COPYING", "LICENSE-MODEL"]
)
def test_the_text_tells_the_licence_where_the_card_is_silent(name: str) -> None:
    assert stated_licence({name: APACHE}) == "apache-2.0"
    assert stated_licence({f"sub/{name}": APACHE}) is None
    assert stated_licence({"LICENSE": APACHE, "LICENSE-MIT": MIT}) is None


@pytest.mark.parametrize("allowed", [(), ("apache-2.0", "mit")])
def test_a_card_and_a_text_that_disagree_are_told(allowed: tuple[str, ...]) -> None:
    watching = Watching()

    licence = find_licence(described("mit", APACHE), allowed, source="org/tiny", progress=watching)

    assert licence == "mit"
    assert watching.notes == ["org/tiny: its model card says mit, and LICENSE is apache-2.0"]


@pytest.mark.parametrize("allowed", [("mit",), ("apache-2.0",)])
def test_92_a_card_and_a_text_that_disagree_must_both_be_allowed(allowed: tuple[str, ...]) -> None:
    with pytest.raises(PolicyError) as caught:
        find_licence(described("mit", APACHE), allowed, source="org/tiny", progress=Silent())

    assert caught.value.exit_code == 18
    assert "mit" in caught.value.message


def test_92_a_text_alone_must_be_allowed_too() -> None:
    with pytest.raises(PolicyError, match=r"org/tiny is under apache-2\.0, and the recipe allows"):
        find_licence(described(None, APACHE), ("mit",), source="org/tiny", progress=Silent())


@pytest.mark.parametrize("text", [b"Do as you like.\n", APACHE + b"\n" + MIT, None])
def test_a_text_that_is_unknown_or_agrees_says_nothing(text: bytes | None) -> None:
    watching = Watching()

    found = find_licence(described("mit", text), ("mit",), source="org/tiny", progress=watching)

    assert (found, watching.notes) == ("mit", [])
