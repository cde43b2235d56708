"""The trip on a stick of FAT32, which knows neither modes nor links: setup, install, an answer."""

from __future__ import annotations

from pathlib import Path

from end_to_end.conftest import Carried, Host, bare_environment
from support.fat32 import make_stick
from support.sandbox import no_network


def test_what_comes_off_a_stick_sets_up_verifies_installs_and_answers(
    carried: Carried, tmp_path: Path
) -> None:
    total = sum(path.stat().st_size for path in carried.medium.iterdir())
    stick = make_stick(tmp_path / "stick.img", total + (64 << 20))
    assert stick.put(carried.medium).returncode == 0
    medium = stick.take(carried.medium.name, tmp_path / "mounted")
    assert {path.name for path in medium.iterdir()} == {p.name for p in carried.medium.iterdir()}
    host = Host((), bare_environment(tmp_path), tmp_path, no_network())
    host.run("sh", medium / "setup.sh", tmp_path / "airpack")

    isolated = Host(
        (str(tmp_path / "airpack/bin/airpack"),), host.environment, tmp_path, host.prefix
    )
    assert isolated.ask("verify", medium, "--pub", carried.key)["ok"]
    assert isolated.ask("install", medium, "--pub", carried.key)["ok"]
    assert isolated.say("run", "tiny-kjv", "In the beginning", "--max-tokens", "8").strip()
