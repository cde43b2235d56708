"""``airpack doctor``, as a person and a script see it."""

from __future__ import annotations

from pathlib import Path

from .conftest import Host


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
