"""Other bytes than locked, a hub that refuses or is busy, and a token that must not travel."""

from __future__ import annotations

import pytest
from support.fetching import locked_weights
from support.hub_server import HubServer
from support.tiny_source import REPOSITORY, WEIGHTS, tiny_source
from support.watching import Watching

from packager.connected.cache import Cache
from packager.connected.source.fetch import fetch
from packager.connected.source.hub import Hub
from packager.errors import DigestMismatchError, HubError, TrailingDataError, TruncatedError
from packager.format.lock import HubCommit, Lock
from packager.progress import Silent


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
