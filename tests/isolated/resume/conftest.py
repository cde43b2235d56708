"""A bundle of many chunks, and a host that has an earlier generation of its model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import make_bundle
from support.hosts import Host
from support.resuming import FILES, VOLUME_SIZE

from packager.connected.signing.keys import SigningKey


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """Two files of many chunks and two small ones, over five volumes; nobody changes it."""
    place = tmp_path_factory.mktemp("stick")
    return make_bundle(place, [key], sequence=2, files=FILES, volume_size=VOLUME_SIZE)


@pytest.fixture(autouse=True)
def _two_cores() -> Iterator[None]:
    """As many workers everywhere: how far an install has come at a call depends on it."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:2])
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def running(tmp_path: Path, host: Host, key: SigningKey) -> Host:
    """A host with generation 1 of the model."""
    host.install(make_bundle(tmp_path / "first", [key], version="0.9.0"))
    return host
