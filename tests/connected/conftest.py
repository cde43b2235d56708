"""The demo model, built once into a signed bundle, with a cache that further builds share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.bundles import make_key
from support.deltas import Shell, Trip
from support.hosts import make_host
from support.workplace import RECIPE, Workplace

from packager.connected.build import build
from packager.connected.cache import Cache
from packager.connected.lock import read_recipe
from packager.connected.provisions.carried import Provisions, provide
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


@pytest.fixture(scope="session")
def trip(workplace: Workplace, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    """Release 1 installed; its inventory; release 2, other prompts, same weights, built on it."""
    place = tmp_path_factory.mktemp("trip")
    make_host(place / "home", workplace.key).install(built)
    for part in ("setup", "derived"):  # a cache of its own: others count what is in theirs
        shutil.copytree(workplace.cache.root / part, place / "cache" / part)
    shell = Shell(place / "home", place / "cache")
    written = shell.ask("inventory", "-o", place / "held.json")
    assert written["bundles"] == [{"name": "demo", "version": "1.0.0", "sequence": 1}]
    assert written["set_up_with"] == ["demo-1.0.0"]
    recipe = place / "demo.yaml"
    text = RECIPE.replace("version: 1.0.0", "version: 2.0.0\nsequence: 2")
    recipe.write_text(text.replace("In the beginning", "Blessed are"), encoding="utf-8")
    key = workplace.recipe.with_name("team.key")
    words: Sequence[str | Path] = ("build", recipe, "-o", place / "out", "--key", key)
    done = shell.run(*words, "--base", place / "held.json", "--json")
    delta = Path(json.loads(done.stdout)["path"])
    return Trip(place / "home", place / "held.json", done.stderr, delta)
