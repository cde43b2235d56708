"""Licences known by their words: true copies, in any layout, and no altered ones."""

from __future__ import annotations

import textwrap
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

from packager.evidence.licence_text import licences_of_text

DEMO = Path(str(files("packager") / "demo" / "tiny-kjv" / "LICENSE"))
# Texts that come with what the tests need anyway.
COPIES = [
    ("packaging", "LICENSE.APACHE", "apache-2.0"),
    ("packaging", "LICENSE.BSD", "bsd-2-clause"),
    ("cryptography", "LICENSE.BSD", "bsd-3-clause"),
    ("click", "LICENSE.txt", "bsd-3-clause"),
    ("hypothesis", "LICENSE.txt", "mpl-2.0"),
    ("pyyaml", "LICENSE", "mit"),
]


def text_of(package: str, name: str) -> str:
    text = distribution(package).read_text(f"licenses/{name}")
    assert text
    return text


@pytest.mark.parametrize(("package", "name", "licence"), COPIES)
def test_a_true_copy_is_known_however_its_lines_are_broken(
    package: str, name: str, licence: str
) -> None:
    text = text_of(package, name)

    assert licences_of_text(text.encode()) == {licence}
    broken = textwrap.fill(" ".join(text.split()), 51).upper().replace('"', "``")
    assert licences_of_text(broken.replace("\n", "\r\n").encode()) == {licence}


@pytest.mark.parametrize(("package", "name", "licence"), COPIES)
def test_a_copy_with_one_word_changed_is_no_licence(package: str, name: str, licence: str) -> None:
    words = text_of(package, name).split()
    words[len(words) // 3] = "never"  # not one of those that may be a name

    assert licences_of_text(" ".join(words).encode()) == frozenset()


def test_the_licence_of_the_model_within_is_known() -> None:
    assert licences_of_text(DEMO.read_bytes()) == {"cc0-1.0"}


@pytest.mark.parametrize(
    ("title", "licence"),
    [
        ("LLAMA 2 COMMUNITY LICENSE AGREEMENT\nLlama 2 Version Release Date: July 18", "llama2"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n\nMeta Llama 3 Version", "llama3"),
        ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version Release", "llama3.1"),
        ("**Llama 4 Community License Agreement**", "llama4"),
        ("Gemma Terms of Use\n\nLast modified: March 24, 2025", "gemma"),
        ("Attribution 4.0 International\n\n=====", "cc-by-4.0"),
        ("Attribution-NonCommercial 4.0 International\n\n=====", "cc-by-nc-4.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "cc-by-sa-4.0"),
        ("Attribution-NonCommercial-NoDerivatives 4.0 International", "cc-by-nc-nd-4.0"),
    ],
)
def test_others_are_known_by_their_title(title: str, licence: str) -> None:
    assert licences_of_text(title.encode()) == {licence}
    below = f"{'Some notes of ours. ' * 30}{title}"
    assert licences_of_text(below.encode()) == frozenset()


def test_two_licences_in_one_file_are_both_found() -> None:
    both = text_of("pyyaml", "LICENSE") + text_of("packaging", "LICENSE.APACHE")

    assert licences_of_text(both.encode()) == {"mit", "apache-2.0"}


@pytest.mark.parametrize("data", [b"", b"Do as you like.\n", b"\xff\xfe\x00M\x00I\x00T", b"MIT"])
def test_what_says_nothing_we_know_is_unknown(data: bytes) -> None:
    assert licences_of_text(data) == frozenset()
