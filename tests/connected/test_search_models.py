"""Models that make vectors, at the lock."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES

from packager.connected.lock import resolve
from packager.errors import UsageError
from packager.format.recipe import parse_recipe
from packager.progress import Silent

RECIPE = """\
name: search
source: {path: model}
variants: [{name: q8_0, format: gguf, type: Q8_0}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the recipe is, beside a model as sentence-transformers publish them."""
    ignored = shutil.ignore_patterns("reference.*")
    shutil.copytree(REFERENCES / "bert", tmp_path / "model", ignore=ignored)
    (tmp_path / "text.txt").write_text("It was the best of times.\n")
    return tmp_path


def test_what_says_how_to_pool_travels_by_default(folder: Path) -> None:
    lock = resolve(parse_recipe(RECIPE), folder, Silent())
    assert {"modules.json", "1_Pooling/config.json"} <= {file.path for file in lock.files}


def test_its_quality_cannot_be_measured_and_that_is_said_at_the_lock(folder: Path) -> None:
    gate = "quality: {text: text.txt, max_perplexity_increase: 5%}\n"
    with pytest.raises(UsageError, match="quality: the model makes vectors"):
        resolve(parse_recipe(RECIPE + gate), folder, Silent())
