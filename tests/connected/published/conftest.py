"""A repository of GGUF files, as a publisher has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.published import publish


@pytest.fixture
def folder(tmp_path: Path, demo_model: Path) -> Path:
    """A publisher's repository: a model in one file, the same in three, and what lies beside."""
    return publish(tmp_path / "model", demo_model)
