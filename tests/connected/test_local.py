"""A local folder as a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.connected.source.local import MAX_DEPTH, list_folder
from packager.errors import UnsafeContentError


def test_a_folder_is_listed_to_its_depth_in_order_without_hidden_files(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    deep.mkdir(parents=True)
    for file in (tmp_path / "z.json", tmp_path / ".hidden", tmp_path / "d" / "a", deep / "f"):
        file.touch()
    assert list_folder(tmp_path) == ("d/a", "d/" * MAX_DEPTH + "f", "z.json")


def test_folders_in_folders_without_end_are_refused(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * (MAX_DEPTH + 1)).mkdir(parents=True)
    with pytest.raises(UnsafeContentError, match="holds folders more than 32 deep"):
        list_folder(tmp_path)
