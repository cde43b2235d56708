"""The commands with a model that makes vectors of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundles import EngineVariant, make_bundle, make_key
from support.checkpoints import REFERENCES, files_of

from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.smoke import record_golden

from .conftest import Host

TEXT = "The capital of France is"


@pytest.fixture(scope="session")
def search_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("search")
    model = place / "search.gguf"
    quantize(files_of(REFERENCES / "bert"), "Q8_0", model, name="search", progress=Silent())
    golden = record_golden(model, prompts=[TEXT], max_tokens=1, progress=Silent())
    key = make_key(place / "team.key")
    variant = EngineVariant("q8_0", model, golden)
    return make_bundle(place, [key], name="search", files={}, engine_variants=[variant])


@pytest.fixture
def searching(search_bundle: Path, tmp_path: Path) -> Host:
    host = Host(tmp_path / "home")
    key = search_bundle.with_name("team.key.pub")
    assert host.airpack("install", search_bundle, "--pub", key, "--no-smoke").code == 0
    return host


def test_it_answers_with_the_vector_of_the_prompt(searching: Host) -> None:
    printed = searching.airpack("run", "search", TEXT)
    piped = searching.airpack("run", "search", stdin=f"{TEXT}\n")
    document = searching.airpack("run", "search", TEXT, "--json").document
    assert printed.code == 0
    assert printed.out == piped.out
    assert printed.document == document["vector"]
    assert np.linalg.norm(document["vector"]) == pytest.approx(1.0, abs=1e-5)
    assert {key: document[key] for key in ("ok", "name", "variant", "prompt")} == {
        "ok": True, "name": "search", "variant": "q8_0", "prompt": TEXT,
    }  # fmt: skip


def test_without_a_prompt_there_is_nothing_to_ask(searching: Host) -> None:
    done = searching.airpack("run", "search")
    assert done.code == 2
    assert "error: nothing to ask\n" in done.err


def test_a_text_that_it_cannot_take_in_is_one_error(searching: Host) -> None:
    done = searching.airpack("run", "search", "word " * 600)
    assert done.code == 1
    assert "error: a text of 602 tokens; the model reads 160 at once\n" in done.err
    assert "try: cut the text into parts" in done.err


def test_the_smoke_test_has_the_keys_that_scripts_read(searching: Host) -> None:
    line = searching.airpack("smoke", "search").out
    document = searching.airpack("smoke", "search", "--json").document
    assert "same tokens, cosine 1.000000 with the build's vectors" in line
    assert list(document) == [
        "ok", "variant", "tokens_match", "expected", "actual", "perplexity",
        "perplexity_expected", "tokens_per_second", "egress", "cosine",
    ]  # fmt: skip
    assert document["ok"] is document["tokens_match"] is True
    assert document["actual"] == document["expected"]
    assert document["perplexity"] is document["perplexity_expected"] is None
