"""The embedded model, quantized, and how it answers: made once for all tests."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from packager.format.golden import Golden
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.smoke import record_golden

# A host with other work to do is slow, and no test is about that.
# The same examples at each run, so that what a change breaks is what it broke; with
# --hypothesis-profile=exploring, others.
settings.register_profile(
    "any host", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("exploring", settings.get_profile("any host"), derandomize=False)
settings.load_profile("any host")

DEMO = Path(str(files("packager") / "demo" / "tiny-kjv"))
PROMPTS = ("In the beginning", "And it came to pass")


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as Q4_K_M."""
    out = tmp_path_factory.mktemp("models") / "demo.gguf"
    sources = {path.name: path for path in DEMO.iterdir()}
    quantize(sources, "Q4_K_M", out, name="demo", progress=Silent())
    return out


@pytest.fixture(scope="session")
def demo_golden(demo_model: Path) -> Golden:
    """How the embedded model answers."""
    return record_golden(demo_model, prompts=PROMPTS, max_tokens=24, progress=Silent())
