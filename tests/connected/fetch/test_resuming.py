"""A connection that is cut, and files that are there in part: what goes on where."""

from __future__ import annotations

import pytest
from support.fetching import leftovers, locked_weights
from support.hub_server import HubServer
from support.tiny_source import WEIGHTS, tiny_source

from packager.connected.cache import Cache
from packager.connected.source.fetch import fetch
from packager.connected.source.hub import Hub
from packager.errors import HubError
from packager.format.lock import Lock
from packager.progress import Silent


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
