"""The cache's folders, and who may work in them."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from packager.connected.cache import Cache
from packager.format.digest import Digest
from packager.format.lock import SHA256, ContentId

KEY = Digest.of(b"key")
CONTENT = ContentId(SHA256, "ab" * 32)


def test_environment_says_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache.of_environment().root == tmp_path / "own"

    monkeypatch.delenv("AIRPACK_CACHE")
    assert Cache.of_environment().root == tmp_path / "shared" / "airpack"

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert Cache.of_environment().root == tmp_path / ".cache" / "airpack"


def test_derived_artefact_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    temporary = cache.temporary(KEY, ".gguf")
    temporary.write_bytes(b"half")
    assert not cache.derived(KEY, ".gguf").exists()
    temporary.write_bytes(b"whole")
    published = cache.publish(temporary, KEY, ".gguf")

    assert published == cache.derived(KEY, ".gguf")
    assert published.read_bytes() == b"whole"
    assert [path.name for path in published.parent.iterdir()] == [published.name]


def test_accepted_blob_leaves_nothing_partial(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.partial(CONTENT).parent.mkdir()
    cache.partial(CONTENT).write_bytes(b"data")
    cache.partial_etag(CONTENT).write_text('"tag"')

    assert cache.accept(CONTENT).read_bytes() == b"data"
    assert list(cache.partial(CONTENT).parent.iterdir()) == []


def hold(root: Path, acquired: multiprocessing.synchronize.Event) -> None:
    with Cache(root).locked("x", sleep=time.sleep, on_wait=lambda: None):
        acquired.set()
        time.sleep(60)


def test_104_lock_of_a_dead_process_is_not_in_the_way(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    acquired = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, acquired))
    holder.start()
    assert acquired.wait(30)
    waited: list[str] = []
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            holder.kill()
            holder.join()

    with Cache(tmp_path).locked("x", sleep=nap, on_wait=lambda: waited.append("waited")):
        assert waited == ["waited"]
        assert len(naps) >= 2
    assert holder.exitcode is not None
