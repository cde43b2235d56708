"""Fetching by several processes: one that is killed, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.tiny_source import RECIPE, tiny_source

from packager.connected.cache import Cache
from packager.connected.lock import lock_recipe, read_lock
from packager.format.lock import LockedFile
from packager.progress import Silent

WEIGHTS = "model.safetensors"
FETCH = """
import sys
from pathlib import Path
from packager.connected.cache import Cache
from packager.connected.source.fetch import fetch
from packager.connected.lock import read_lock
from packager.progress import Silent
fetch(read_lock(Path(sys.argv[1])), Cache.of_environment(), Silent())
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer({"org/tiny": tiny_source(weights=3_000_000)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def recipe(hub: HubServer, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    lock_recipe(path, Silent())
    hub.requests.clear()
    return path


def start(recipe: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCH, str(recipe)], env=os.environ.copy())


def weights(recipe: Path) -> LockedFile:
    return next(file for file in read_lock(recipe).files if file.path == WEIGHTS)


def wait_until_size(path: Path, size: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} did not grow to {size}"
        time.sleep(0.01)


def test_95_killed_process_is_resumed_at_the_byte_by_the_next(hub: HubServer, recipe: Path) -> None:
    hub.stall(WEIGHTS, after=1_234_567)
    file = weights(recipe)
    partial = Cache.of_environment().partial(file.content)

    process = start(recipe)
    wait_until_size(partial, 1_234_567)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    hub.release()
    sent_before = len(hub.requests_for(WEIGHTS))
    assert start(recipe).wait(60) == 0

    (request,) = hub.requests_for(WEIGHTS)[sent_before:]
    assert request.headers["range"] == "bytes=1234567-"
    assert request.headers["if-range"] == f'"{file.content.hex}"'
    blob = Cache.of_environment().blob(file.content)
    assert blob.read_bytes() == tiny_source(weights=3_000_000)[WEIGHTS]
    assert list(partial.parent.iterdir()) == []


def test_two_processes_fetch_each_byte_once(hub: HubServer, recipe: Path) -> None:
    hub.stall(WEIGHTS, after=500_000)
    file = weights(recipe)

    first = start(recipe)
    wait_until_size(Cache.of_environment().partial(file.content), 500_000)
    second = start(recipe)
    time.sleep(0.5)  # let the second meet the first's lock
    hub.release()

    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert len(hub.requests_for(WEIGHTS)) == 1
    assert Cache.of_environment().blob(file.content).stat().st_size == file.size


def test_interrupt_leaves_the_part_and_stops_every_thread(hub: HubServer, recipe: Path) -> None:
    hub.stall(WEIGHTS, after=100_000)
    partial = Cache.of_environment().partial(weights(recipe).content)

    process = start(recipe)
    wait_until_size(partial, 100_000)
    process.send_signal(signal.SIGINT)
    hub.release()

    assert process.wait(30) != 0
    assert 100_000 <= partial.stat().st_size < weights(recipe).size
