"""What runs is told by what the kernel says is mapped, and by nothing that others choose."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from packager.isolated.running import running_models
from packager.store.home import Home


def mapped(path: Path) -> mmap.mmap:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def test_a_file_below_a_directory_of_the_home_s_name_elsewhere_is_no_model(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.models.mkdir(parents=True)
    look_alike = Path(f"{tmp_path}/elsewhere{home.models}/fake/1/q4/model.gguf")
    with mapped(look_alike):
        assert running_models(home) == ()


@pytest.mark.parametrize("name", ["model.gguf", "a model.gguf"])
def test_a_mapped_file_of_a_generation_is_a_model(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    with mapped(home.models / "tiny" / "3" / "q4" / name):
        [model] = running_models(home)
    assert (model.name, model.generation, model.variant) == ("tiny", 3, "q4")
    assert model.pid == os.getpid()
