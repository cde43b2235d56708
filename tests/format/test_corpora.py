"""Every file that fuzzing found worth keeping, and changed ones: taken or refused, and soon.

``scripts/fuzz.py`` looks for more of them, for as long as it is let. Those called ``right-`` are
what it began with: documents in which every member says something.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzz_mutations import mutate
from support.fuzz_targets import TARGETS, check

CORPORA = Path(__file__).parent.parent / "corpora"
MAX_CORPORA_SIZE = 200 << 10  # bytes of all files together: they are read at every run


def corpus(name: str, pattern: str = "*") -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPORA / name).glob(pattern))]


@pytest.mark.parametrize("name", TARGETS)
def test_every_file_of_a_corpus_is_taken_or_refused(name: str) -> None:
    for data in corpus(name):
        check(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_right_document_is_taken_whole(name: str) -> None:
    right = corpus(name, "right-*")
    assert right
    for data in right:
        assert check(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_file_is_taken_whole_or_refused(name: str) -> None:
    @settings(max_examples=20, deadline=None)
    @given(st.sampled_from(corpus(name)), st.randoms(use_true_random=False))
    def changed(data: bytes, random: Random) -> None:
        check(TARGETS[name], mutate(name, data, random))

    changed()


def test_there_is_a_corpus_for_each_parser_and_all_of_them_are_small() -> None:
    assert {folder.name for folder in CORPORA.iterdir()} == set(TARGETS)
    files = [path for path in CORPORA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_CORPORA_SIZE
