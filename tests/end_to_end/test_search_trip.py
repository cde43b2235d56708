"""An embedding model, from a folder to a service that makes vectors where there is no network."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from end_to_end.conftest import Carried, Host
from support.checkpoints import REFERENCES

from packager.format.golden import GoldenVectors

RECIPE = """\
name: search
source: {path: model}
variants:
  - {name: f16, format: gguf, type: F16}
smoke: {prompts: ["The capital of France is"]}
targets:
  - {platform: linux_x86_64, python: ["PYTHON"], glibc: "2.28"}
"""
REFERENCE = json.loads((REFERENCES / "bert" / "reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def searching(connected: Host) -> Carried:
    """A medium with the reference BERT."""
    folder = connected.folder / "search"
    shutil.copytree(
        REFERENCES / "bert", folder / "model", ignore=shutil.ignore_patterns("reference.*")
    )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "search.yaml").write_text(RECIPE.replace("PYTHON", python))
    connected.say("lock", folder / "search.yaml")
    made = connected.ask("build", folder / "search.yaml", "-o", folder / "out", "--key", "team.key")
    return Carried(Path(made["path"]), connected.folder / "team.key.pub")


def test_an_embedding_model_is_tested_asked_and_served(searching: Carried, isolated: Host) -> None:
    installed = isolated.ask("install", searching.medium, "--pub", searching.key)

    [variant] = searching.index.variants
    assert isinstance(variant.golden, GoldenVectors)
    assert installed["smoke"]["variants"]["f16"]["ok"]
    assert isolated.ask("smoke", "search")["cosine"] == pytest.approx(1.0, abs=1e-9)

    texts = REFERENCE["texts"]
    asked = [json.loads(isolated.say("run", "search", text)) for text in texts]
    served = isolated.serve_and_ask("search", "/v1/embeddings", {"input": texts})["data"]

    wanted = np.load(REFERENCES / "bert" / "reference.npy")
    found = np.array([item["embedding"] for item in served])
    for vectors in (np.array(asked), found):
        assert (vectors * wanted).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
