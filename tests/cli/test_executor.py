"""``airpack build --executor``: what cannot be reached is refused before anything is fetched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.workplace import RECIPE

from .conftest import Host


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_misspelt_executor_is_a_usage_error_with_an_example(host: Host, recipe: Path) -> None:
    done = host.airpack("build", recipe, "-o", recipe.parent / "out", "--executor", "spark:x")

    assert done.code == 2
    assert done.err == ("error: 'spark:x' is no executor\ntry: --executor dask:tcp://HOST:8786\n")
    assert list(recipe.parent.iterdir()) == [recipe]


def test_an_address_without_a_scheduler_is_named_in_two_lines(host: Host, recipe: Path) -> None:
    with socket.socket() as bound:  # but nobody listens
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        done = host.airpack(
            "build", recipe, "-o", recipe.parent / "out", "--executor", f"dask:{address}"
        )

    assert done.code == 1
    assert done.err.splitlines() == [
        f"error: no dask scheduler answers at {address}",
        "try: dask scheduler --port 8786",
    ]
    assert list(recipe.parent.iterdir()) == [recipe]
