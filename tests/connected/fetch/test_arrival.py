"""From lock to files, over a real socket: what is fetched, and what is there already."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.fetching import leftovers
from support.hub_server import HubServer
from support.tiny_source import RECIPE, REPOSITORY, WEIGHTS, tiny_source
from support.watching import Watching

from packager.connected.cache import Cache
from packager.connected.lock import resolve
from packager.connected.source.fetch import fetch
from packager.connected.source.hub import Hub
from packager.errors import DigestMismatchError, NoSpaceError
from packager.format.lock import SHA256, ContentId, Folder, HubCommit, Lock, LockedFile
from packager.format.recipe import parse_recipe
from packager.progress import Silent

WANTED = {"LICENSE", "README.md", "config.json", WEIGHTS, "tokenizer.json"}


def test_every_wanted_file_arrives_and_no_other_is_asked_for(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    files = fetch(lock, cache, Silent(), hub=client)

    source = tiny_source()
    assert {path: file.read_bytes() for path, file in files.items()} == {
        path: source[path] for path in WANTED
    }
    assert hub.files_fetched == WANTED - {"LICENSE", "README.md", "config.json"}  # by the lock
    assert leftovers(cache) == []


def test_second_fetch_asks_the_hub_for_nothing(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    first = fetch(lock, cache, Silent(), hub=client)
    hub.requests.clear()

    assert fetch(lock, cache, Silent(), hub=client) == first
    assert hub.requests == []


def test_blob_damaged_in_the_cache_is_fetched_again(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    blob = fetch(lock, cache, Silent(), hub=client)[WEIGHTS]
    data = bytearray(blob.read_bytes())
    data[70_000] ^= 1
    blob.write_bytes(data)
    hub.requests.clear()
    watching = Watching()

    fetch(lock, cache, watching, hub=client)

    assert blob.read_bytes() == tiny_source()[WEIGHTS]
    assert hub.files_fetched == {WEIGHTS}
    assert any("fetching it again" in note for note in watching.notes)


def test_progress_counts_every_byte_once(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.cut(WEIGHTS, after=50_000)
    hub.ignore_range = True
    watching = Watching()

    fetch(lock, cache, watching, hub=client)

    task = watching.tasks[-1]
    by_the_lock = ("LICENSE", "README.md", "config.json")
    missing = lock.size - sum(f.size for f in lock.files if f.path in by_the_lock)
    assert (task.total, task.done) == (missing, missing)


def test_lock_pins_the_commit_while_main_moves_on(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.commit(REPOSITORY, tiny_source() | {"tokenizer.json": b'{"other": 1}'})

    files = fetch(lock, cache, Silent(), hub=client)

    assert files["tokenizer.json"].read_bytes() == tiny_source()["tokenizer.json"]


def test_files_too_large_for_the_disk_are_refused_before_anything_is_fetched(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    huge = LockedFile("model-2.safetensors", 1 << 44, ContentId(SHA256, "0" * 64))
    assert isinstance(lock.source, HubCommit)

    with pytest.raises(NoSpaceError, match=r"to fetch, and .* free") as caught:
        fetch(
            Lock(lock.recipe, lock.source, None, (huge, *lock.files)), cache, Silent(), hub=client
        )

    assert "AIRPACK_CACHE" in (caught.value.hint or "")
    assert hub.requests == []


def test_same_content_under_two_names_is_fetched_once(
    hub: HubServer, cache: Cache, client: Hub, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, tiny_source() | {"vocab.json": tiny_source()["tokenizer.json"]})
    lock = resolve(parse_recipe(RECIPE), tmp_path, Silent(), cache=cache, hub=client)
    hub.requests.clear()

    files = fetch(lock, cache, Silent(), hub=client)

    assert files["vocab.json"] == files["tokenizer.json"]
    asked = hub.requests_for("vocab.json") + hub.requests_for("tokenizer.json")
    assert len(asked) == 1


def test_empty_file_arrives_empty(
    hub: HubServer, cache: Cache, client: Hub, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, tiny_source() | {"NOTICE": b""})
    lock = resolve(parse_recipe(RECIPE), tmp_path, Silent(), cache=cache, hub=client)

    assert fetch(lock, cache, Silent(), hub=client)["NOTICE"].read_bytes() == b""


def test_local_folder_is_read_in_place_and_checked(tmp_path: Path, cache: Cache) -> None:
    folder, lock = local_lock(tmp_path)

    files = fetch(lock, cache, Silent(), recipe_folder=tmp_path)

    assert files[WEIGHTS] == folder / WEIGHTS
    assert set(files) == WANTED
    assert not cache.root.exists()


def test_local_file_changed_since_the_lock_is_refused(tmp_path: Path, cache: Cache) -> None:
    folder, lock = local_lock(tmp_path)
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)

    with pytest.raises(DigestMismatchError, match=WEIGHTS):
        fetch(lock, cache, Silent(), recipe_folder=tmp_path)


def local_lock(folder: Path) -> tuple[Path, Lock]:
    source = folder / "model"
    source.mkdir()
    for path, data in tiny_source().items():
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_bytes(data)
    recipe = parse_recipe(RECIPE.replace("hub: org/tiny", "path: ./model"))
    lock = resolve(recipe, folder, Silent())
    assert lock.source == Folder("./model")
    digests = {file.path: file.content.hex for file in lock.files}
    assert digests[WEIGHTS] == hashlib.sha256(tiny_source()[WEIGHTS]).hexdigest()
    return source, lock
