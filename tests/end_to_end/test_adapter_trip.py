"""A LoRA adapter, from PEFT's folder to answers where there is no network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from end_to_end.conftest import REPOSITORY, Carried, Host
from support.adapters import query_adapter

from packager.format.golden import GoldenAnswers

RECIPE = """\
name: kjv
source: {hub: REPOSITORY, revision: main}
variants:
  - {name: q4_k_m, format: gguf, type: Q4_K_M}
  - {name: legal, format: lora, base: q4_k_m, source: {path: adapter}}
smoke: {prompts: ["In the beginning"], max_tokens: 8}
targets:
  - {platform: linux_x86_64, python: ["PYTHON"], glibc: "2.28"}
"""
PROMPT = "In the beginning"


@pytest.fixture(scope="module")
def adapted(connected: Host) -> Carried:
    """A medium with the demo model and an adapter to it."""
    folder = connected.folder / "adapted"
    query_adapter(folder / "adapter", width=256)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    recipe = folder / "kjv.yaml"
    recipe.write_text(RECIPE.replace("REPOSITORY", REPOSITORY).replace("PYTHON", python))
    connected.say("lock", recipe)
    made = connected.ask("build", recipe, "--locked", "-o", folder / "out", "--key", "team.key")
    return Carried(Path(made["path"]), connected.folder / "team.key.pub")


def test_a_model_and_its_adapter_are_tested_asked_and_served(
    adapted: Carried, isolated: Host
) -> None:
    installed = isolated.ask("install", adapted.medium, "--pub", adapted.key, "--variant", "legal")

    assert installed["variants"] == ["q4_k_m", "legal"]
    smoke = installed["smoke"]["variants"]
    assert smoke["q4_k_m"]["ok"]
    assert smoke["legal"]["ok"]
    assert smoke["legal"]["tokens_match"]
    assert isolated.ask("smoke", "kjv", "--variant", "legal")["ok"]

    plain, legal = (
        variant.golden.answers[0].text
        for variant in adapted.index.variants
        if isinstance(variant.golden, GoldenAnswers)
    )
    ask = ("run", "kjv", PROMPT, "--max-tokens", "8")
    assert isolated.say(*ask).removesuffix("\n") == plain
    assert isolated.say(*ask, "--variant", "legal").removesuffix("\n") == legal != plain
    body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    served = isolated.serve_and_ask("kjv", "/v1/completions", body, "--variant", "legal")
    assert served["choices"][0]["text"] == legal
