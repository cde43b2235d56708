"""From lock to files, over a real socket: what is fetched, what is refused, what goes on where."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer
from support.tiny_source import RECIPE, tiny_source
from support.watching import Watching

from packager.connected.cache import Cache
from packager.connected.fetch import fetch
from packager.connected.hub import Hub
from packager.connected.lock import resolve
from packager.connected.retry import Patience
from packager.errors import (
    DigestMismatchError,
    HubError,
    NoSpaceError,
    TrailingDataError,
    TruncatedError,
)
from packager.format.lock import SHA256, ContentId, Folder, HubCommit, Lock, LockedFile
from packager.format.recipe import parse_recipe
from packager.progress import Silent

WEIGHTS = "model.safetensors"
REPOSITORY = "org/tiny"
WANTED = {"LICENSE", "README.md", "config.json", WEIGHTS, "tokenizer.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: tiny_source()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(waits: list[float]) -> Hub:
    return Hub(Patience(tries=4, sleep=waits.append, jitter=lambda: 1.0), Silent())


@pytest.fixture
def lock(hub: HubServer, cache: Cache, client: Hub, tmp_path: Path) -> Lock:
    lock = resolve(parse_recipe(RECIPE), tmp_path, Silent(), cache=cache, hub=client)
    hub.requests.clear()
    return lock


def locked_weights(lock: Lock) -> LockedFile:
    return next(file for file in lock.files if file.path == WEIGHTS)


def leftovers(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / "partial").glob("*"))


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


@pytest.mark.parametrize("where", [0, 1, 65_535, 65_536, 99_999])
def test_95_connection_cut_resumes_at_the_byte(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, where: int
) -> None:
    hub.cut(WEIGHTS, after=where)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    ranges = [request.headers.get("range") for request in hub.requests_for(WEIGHTS)]
    assert ranges == [None, f"bytes={where}-" if where else None]
    assert leftovers(cache) == []


def test_95_connection_cut_many_times_goes_on_as_long_as_bytes_come(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.cut(WEIGHTS, after=5_000, times=15)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    ranges = [request.headers.get("range") for request in hub.requests_for(WEIGHTS)]
    assert ranges[1:] == [f"bytes={5_000 * cut}-" for cut in range(1, 16)]


def test_95_cut_that_never_ends_gives_up_and_keeps_what_came(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, waits: list[float]
) -> None:
    hub.cut(WEIGHTS, after=40_000)
    hub.cut(WEIGHTS, after=0, times=99)

    with pytest.raises(HubError, match=r"hung up.*model\.safetensors") as caught:
        fetch(lock, cache, Silent(), hub=client)

    assert "resumes" in (caught.value.hint or "")
    assert cache.partial(locked_weights(lock).content).stat().st_size == 40_000
    assert not cache.blob(locked_weights(lock).content).exists()
    assert waits == [1.0, 2.0, 4.0]


def test_resume_starts_over_when_the_server_ignores_ranges(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.cut(WEIGHTS, after=30_000)
    hub.ignore_range = True

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]


def test_resume_starts_over_when_the_entity_tag_has_changed(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.cut(WEIGHTS, after=30_000)
    hub.cut(WEIGHTS, after=0, times=4)
    with pytest.raises(HubError):
        fetch(lock, cache, Silent(), hub=client)
    hub.change_etag(WEIGHTS, "another")
    hub.requests.clear()
    while hub.take_fault(WEIGHTS):
        pass

    files = fetch(lock, cache, Silent(), hub=client)

    (request,) = hub.requests_for(WEIGHTS)
    assert request.headers["range"] == "bytes=30000-"
    assert request.headers["if-range"] == f'"{locked_weights(lock).content.hex}"'
    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]


def test_partial_file_damaged_on_disk_is_found_out_and_fetched_anew(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    partial = cache.partial(locked_weights(lock).content)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(b"\0" * 60_000)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    ranges = [request.headers.get("range") for request in hub.requests_for(WEIGHTS)]
    assert ranges == ["bytes=60000-", None]


@pytest.mark.parametrize("extra", [0, 1, 50_000])
def test_partial_file_already_whole_or_longer_needs_at_most_one_request(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, extra: int
) -> None:
    partial = cache.partial(locked_weights(lock).content)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(tiny_source()[WEIGHTS] + b"x" * extra)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    assert len(hub.requests_for(WEIGHTS)) == (1 if extra else 0)


@pytest.mark.parametrize("path", [WEIGHTS, "tokenizer.json"])
def test_94_file_whose_digest_is_not_the_hubs_never_gets_a_name(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, path: str
) -> None:
    data = bytearray(tiny_source()[path])
    data[-1] ^= 1
    hub.serve_instead(path, bytes(data))

    with pytest.raises(DigestMismatchError, match=path) as caught:
        fetch(lock, cache, Silent(), hub=client)

    locked = next(file for file in lock.files if file.path == path)
    assert caught.value.exit_code == 10
    assert str(locked.content) in caught.value.message
    assert not cache.blob(locked.content).exists()
    assert not cache.partial(locked.content).exists()


@pytest.mark.parametrize(("change", "error"), [(-1, TruncatedError), (1, TrailingDataError)])
def test_94_file_of_another_size_is_refused_before_its_bytes_are_kept(
    hub: HubServer,
    lock: Lock,
    cache: Cache,
    client: Hub,
    change: int,
    error: type[Exception],
) -> None:
    data = tiny_source()[WEIGHTS]
    hub.serve_instead(WEIGHTS, (data + b"x")[: len(data) + change])

    with pytest.raises(error, match=WEIGHTS):
        fetch(lock, cache, Silent(), hub=client)

    assert not cache.blob(locked_weights(lock).content).exists()
    assert not cache.partial(locked_weights(lock).content).exists()


def test_93_revision_gone_says_so_and_what_to_do(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    assert isinstance(lock.source, HubCommit)
    hub.forget(REPOSITORY, lock.source.revision)

    with pytest.raises(HubError, match=f"revision {lock.source.revision} .* is gone") as caught:
        fetch(lock, cache, Silent(), hub=client)

    assert caught.value.hint is not None
    assert "airpack lock" in caught.value.hint


def test_lock_pins_the_commit_while_main_moves_on(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.commit(REPOSITORY, tiny_source() | {"tokenizer.json": b'{"other": 1}'})

    files = fetch(lock, cache, Silent(), hub=client)

    assert files["tokenizer.json"].read_bytes() == tiny_source()["tokenizer.json"]


def test_97_many_requests_waits_as_long_as_the_hub_asks(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, waits: list[float]
) -> None:
    hub.answer(WEIGHTS, 429, times=2, headers={"Retry-After": "7"})
    watching = Watching()

    files = fetch(lock, cache, watching, hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    assert waits == [7.0, 7.0]
    assert any("429" in note and "7 s" in note for note in watching.notes)


def test_97_faults_of_the_server_are_tried_again_with_growing_pauses(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, waits: list[float]
) -> None:
    hub.answer("tokenizer.json", 503, times=3)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files["tokenizer.json"].read_bytes() == tiny_source()["tokenizer.json"]
    assert waits == [1.0, 2.0, 4.0]


def test_97_fault_that_stays_is_an_error_that_names_it(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub
) -> None:
    hub.answer(WEIGHTS, 500, times=99)

    with pytest.raises(HubError, match=r"HTTP 500.*model\.safetensors"):
        fetch(lock, cache, Silent(), hub=client)


def test_97_wait_beyond_all_patience_is_not_waited(
    hub: HubServer, lock: Lock, cache: Cache, client: Hub, waits: list[float]
) -> None:
    hub.answer(WEIGHTS, 429, headers={"Retry-After": "86400"})

    with pytest.raises(HubError, match="429"):
        fetch(lock, cache, Silent(), hub=client)

    assert waits == []


def test_98_token_goes_to_the_hub_and_never_to_the_host_it_redirects_to(
    hub: HubServer,
    lock: Lock,
    cache: Cache,
    client: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.token = "hf_secretsecret"
    monkeypatch.setenv("HF_TOKEN", hub.token)

    files = fetch(lock, cache, Silent(), hub=client)

    assert files[WEIGHTS].read_bytes() == tiny_source()[WEIGHTS]
    shown = {(request.server, request.headers.get("authorization")) for request in hub.requests}
    assert shown == {("hub", "Bearer hf_secretsecret"), ("cdn", None)}
    for path in cache.root.rglob("*"):
        assert not path.is_file() or b"hf_secret" not in path.read_bytes()


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
