"""One signer and a host that trusts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import EngineVariant, make_bundle, make_key
from support.hosts import Host, make_host

from packager.connected.signing.keys import SigningKey
from packager.format.golden import Golden


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """The sender's key."""
    return make_key(tmp_path_factory.mktemp("keys") / "team")


@pytest.fixture
def host(tmp_path: Path, key: SigningKey) -> Host:
    """A host with nothing installed."""
    return make_host(tmp_path / "home", key)


@pytest.fixture
def running(tmp_path: Path, host: Host, key: SigningKey) -> Host:
    """A host with generation 1 of the model."""
    host.install(make_bundle(tmp_path / "first", [key], version="0.9.0"))
    return host


@pytest.fixture(scope="session")
def demo_variant(demo_model: Path, demo_golden: Golden) -> EngineVariant:
    """The embedded model as a variant that the engine opens."""
    return EngineVariant("q4_k_m", demo_model, demo_golden)
