"""A hub with a tiny model, its lock, and a cache that has of it what came with the lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.tiny_source import RECIPE, REPOSITORY, tiny_source

from packager.connected.cache import Cache
from packager.connected.lock import resolve
from packager.connected.source.hub import Hub
from packager.connected.source.retry import Patience
from packager.format.lock import Lock
from packager.format.recipe import parse_recipe
from packager.progress import Silent


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: tiny_source()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(waits: list[float]) -> Hub:
    return Hub(Patience(tries=4, sleep=waits.append, jitter=lambda: 1.0), Silent())


@pytest.fixture
def lock(hub: HubServer, cache: Cache, client: Hub, tmp_path: Path) -> Lock:
    lock = resolve(parse_recipe(RECIPE), tmp_path, Silent(), cache=cache, hub=client)
    hub.requests.clear()
    return lock
