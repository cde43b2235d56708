"""``airpack ps``: what runs now, as the kernel tells it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .conftest import AIRPACK, Host


@contextmanager
def serving(host: Host) -> Iterator[str]:
    """The demo model behind HTTP, at the URL that this gives."""
    command = [*AIRPACK, "serve", "demo", "--port", "0", "--json"]
    with subprocess.Popen(
        command, env=host.environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "}\n")
            yield json.loads("".join([*lines, "}"]))["url"]
        finally:
            server.send_signal(signal.SIGTERM)


def test_a_model_that_is_served_is_listed_with_its_port_until_it_ends(installed: Host) -> None:
    assert installed.airpack("ps").out == "no model runs now\n"
    with serving(installed) as url:
        [running] = installed.airpack("ps", "--json").document
        assert (running["name"], running["generation"], running["variant"]) == (
                "demo", 2, "q4_k_m",
            )  # fmt: skip
        assert (running["command"], running["port"]) == ("serve", int(url.rpartition(":")[2]))
        assert running["memory"] > 1 << 20
        row = installed.airpack("ps").out.splitlines()[1].split()
        assert row[:5] == ["demo", "2", "q4_k_m", "serve", str(running["port"])]
    assert _soon_nothing_runs(installed)


def test_the_models_of_another_home_are_not_listed(installed: Host, tmp_path: Path) -> None:
    with serving(installed):
        assert Host(tmp_path / "other").airpack("ps", "--json").document == []


def _soon_nothing_runs(host: Host) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if host.airpack("ps", "--json").document == []:
            return True
    return False
