"""``airpack doctor``, as a person and a script see it."""

from __future__ import annotations

from pathlib import Path

from support.bundles import EngineVariant, make_bundle, make_key

from packager.format.golden import Golden
from packager.format.memory import MemoryNeed

from .conftest import Host, Sender


def test_this_host_is_fit_and_the_kernels_in_use_are_named(tmp_path: Path) -> None:
    done = Host(tmp_path / "home").airpack("doctor", "--json")
    assert done.code == 0
    assert done.document["ok"] is True
    checks = {check["what"]: check for check in done.document["checks"]}
    assert checks["kernels"]["found"]
    assert checks["engine"]["found"].startswith("xllamacpp ")
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_to_exits_14_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Host(tmp_path / "file" / "home").airpack("doctor", "--json")
    assert done.code == 14
    checks = {check["what"]: check for check in done.document["checks"]}
    assert checks["home"]["ok"] is False
    assert "AIRPACK_HOME" in checks["home"]["hint"]


def test_a_bundle_that_fits_is_said_to_line_by_line(host: Host, sender: Sender) -> None:
    done = host.airpack("doctor", sender.first, "--pub", sender.pub, "--json")

    assert done.code == 0, done.err
    checks = {check["what"]: check for check in done.document["checks"]}
    assert {"target", "Python", "memory for q4_k_m", "space", "clock"} <= set(checks)
    assert all(check["ok"] for check in checks.values())
    assert not host.home.exists()


def test_107_a_bundle_that_does_not_fit_exits_14_and_says_what_to_do(
    host: Host, tmp_path: Path, demo_model: Path, demo_golden: Golden
) -> None:
    key = make_key(tmp_path / "team.key")
    huge = EngineVariant("big", demo_model, demo_golden, memory=MemoryNeed(4096, 1 << 50, 0))
    bundle = make_bundle(tmp_path, [key], files={}, engine_variants=[huge])

    done = host.airpack("doctor", bundle, "--pub", tmp_path / "team.key.pub")

    assert done.code == 14
    assert "NOT  " in done.out
    assert "memory for big" in done.out
    assert "try: install a smaller variant" in done.err


def test_a_bundle_that_nobody_trusted_signed_is_not_looked_into(host: Host, sender: Sender) -> None:
    done = host.airpack("doctor", sender.first)
    assert done.code == 11
    assert done.out == ""
