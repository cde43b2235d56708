"""The demo model, built once into a signed bundle, with a cache that further builds share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import make_key
from support.workplace import RECIPE, Workplace

from packager.connected.build import build
from packager.connected.cache import Cache
from packager.connected.lock import read_recipe
from packager.connected.provisions import Provisions, provide
from packager.progress import Silent


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Where all builds of this session are made; its cache is filled by the first of them."""
    place = tmp_path_factory.mktemp("workplace")
    recipe = place / "demo.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return Workplace(recipe, make_key(place / "team.key"), Cache(place / "cache"))


@pytest.fixture(scope="session")
def provisions(workplace: Workplace) -> Provisions:
    """Wheels and libraries, downloaded once."""
    return provide(read_recipe(workplace.recipe), workplace.cache, Silent())


@pytest.fixture(scope="session")
def built(
    workplace: Workplace, provisions: Provisions, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of the demo model; tests only read it."""
    request = workplace.request(tmp_path_factory.mktemp("medium"))
    return build(request, workplace.cache, Silent())
