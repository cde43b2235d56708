"""What ``inspect`` shows of what quantizing cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key
from support.figures import FIGURES

from packager.cli.inspection import Documents, bundle_document, bundle_text
from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle

NONE = Documents((), (), ())


@pytest.fixture
def index(tmp_path: Path) -> Bundle:
    """The index of a small bundle whose quality was measured."""
    made = make_bundle(tmp_path, [make_key(tmp_path / "team.key")])
    index = parse_bundle((made / INDEX_NAME).read_bytes())
    first, *others = index.variants
    return replace(index, variants=(replace(first, quality=FIGURES), *others))


def test_a_person_reads_the_figures_with_their_confidence(index: Bundle) -> None:
    name = index.variants[0].name
    (line,) = [
        line for line in bundle_text(index, (), NONE).splitlines() if line.startswith("quality")
    ]
    assert f"{name}: perplexity 31.50, +5.1% ± 0.2% against the original" in line
    assert "84.2% of 4080 places" in line


def test_a_script_reads_the_figures_and_of_others_that_there_are_none(index: Bundle) -> None:
    (first, *others) = bundle_document(index, (), NONE)["variants"]  # type: ignore[misc]
    assert first["quality"]["perplexity_increase"] == pytest.approx(0.0513, abs=1e-4)
    assert first["quality"]["divergence"] == 0.05
    assert first["quality"]["same_top_token"] == 0.8422
    assert all(other["quality"] is None for other in others)
