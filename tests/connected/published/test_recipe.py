"""The recipe that is written for a beginner who names a repository of GGUF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.published import ONE, SPLIT, paths_of

from packager.connected.init import init_recipe
from packager.connected.lock import lock_recipe, read_recipe
from packager.progress import Silent


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = {"demo-Q8_0.gguf": b"GGUF", "demo-Q2_K-00001-of-00002.gguf": b"GGUF"}
    imatrix = {"demo.imatrix.gguf": b"GGUF"}
    del files[ONE]
    with HubServer({"org/demo-GGUF": {**files, **others, **imatrix}}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_the_recipe_for_a_gguf_repository_names_what_a_beginner_wants(
    hub: HubServer, tmp_path: Path
) -> None:
    recipe = tmp_path / "demo.yaml"
    recipe.write_text(init_recipe("org/demo-GGUF", Silent()))

    variants = [(v.name, v.format, v.file) for v in read_recipe(recipe).variants]
    assert variants == [("q4_k_m", "gguf", SPLIT), ("q8_0", "gguf", "demo-Q8_0.gguf")]
    assert {SPLIT, "demo-Q8_0.gguf"} <= set(paths_of(lock_recipe(recipe, Silent())))
    assert hub.files_fetched == {"LICENSE", "README.md", "config.json"}


def test_the_recipe_for_other_types_names_the_first_and_comments_the_rest(folder: Path) -> None:
    for path in folder.glob("*Q4_K_M*"):
        path.unlink()
    for name in ("m.IQ4_XS.gguf", "m.UD-Q6_K_XL.gguf", "strange.gguf"):
        (folder / name).write_bytes(b"GGUF")

    text = init_recipe(str(folder), Silent(), recipe_folder=folder.parent)

    (folder.parent / "demo.yaml").write_text(text)
    (variant,) = read_recipe(folder.parent / "demo.yaml").variants
    assert (variant.name, variant.file) == ("iq4_xs", "m.IQ4_XS.gguf")
    assert "\n  # - {name: q6_k_xl, format: gguf, file: m.UD-Q6_K_XL.gguf}\n" in text
    assert "\n  # - {name: strange, format: gguf, file: strange.gguf}\n" in text
    assert "mmproj" not in text
