"""An engine that reaches for the network, through the real commands: exit code 16, and its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.reaching_worker import ADDRESS

REACHING = """
import sys
from packager.runtime.engine import Engine
Engine.worker = "support.reaching_worker"
from packager.cli.main import main
sys.argv[0] = "airpack"
main()
"""
WATCHED = "from packager.runtime.egress import watch_egress; print(watch_egress() is not None)"
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(autouse=True)
def _watched() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True)
    if done.stdout.strip() != "True":
        pytest.skip("this kernel lets nobody watch")


def airpack(host: object, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**host.environment, "PYTHONPATH": TESTS}  # type: ignore[attr-defined]
    command = [sys.executable, "-c", REACHING, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_smoke_names_what_was_reached_for_and_exits_16(installed: object) -> None:
    done = airpack(installed, "smoke", "demo", "--json")
    assert done.returncode == 16
    document = json.loads(done.stdout)
    assert document["egress"]["attempts"] == [f"{ADDRESS} port 443"]
    assert document["ok"] is False
    assert document["tokens_match"] is True
    assert f"error: the engine reached for the network, and was refused: {ADDRESS}" in done.stderr


def test_install_refuses_a_model_whose_engine_reaches_out(
    installed: object, sender: object
) -> None:
    before = airpack(installed, "list", "--json").stdout
    done = airpack(installed, "install", sender.second)  # type: ignore[attr-defined]
    assert done.returncode == 16
    assert ADDRESS in done.stderr
    assert airpack(installed, "list", "--json").stdout == before
