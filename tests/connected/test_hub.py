"""What the hub says of a repository, and each way in which it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from support.hub_server import HubServer
from support.tiny_source import tiny_source
from support.watching import Watching

from packager.connected.source.hub import Hub
from packager.connected.source.retry import Patience, RetryableError
from packager.errors import AirpackError, HubError, UsageError
from packager.format.lock import GIT_BLOB, SHA256, HubCommit
from packager.progress import Silent

REPOSITORY = "org/tiny"
TOKEN = "hf_secretsecret"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: tiny_source()}, token=TOKEN) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def client(watching: Watching | None = None) -> Hub:
    return Hub(Patience(tries=3, sleep=lambda _: None), watching or Silent())


def read(commit: HubCommit, path: str) -> bytes:
    with client().open(commit, path) as body:
        return b"".join(body.chunks)


def refusal(repository: str = REPOSITORY, revision: str = "main") -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        client().resolve(repository, revision)
    return caught.value


def test_branch_is_pinned_to_its_commit_with_the_content_id_of_each_file(hub: HubServer) -> None:
    snapshot = client().resolve(REPOSITORY, "main")

    assert snapshot.commit == HubCommit(REPOSITORY, hub.revision(REPOSITORY))
    source = tiny_source()
    assert [file.path for file in snapshot.files] == sorted(source)
    ids = {file.path: file.content for file in snapshot.files}
    assert ids["model.safetensors"].kind == SHA256
    assert ids["model.safetensors"].hex == hashlib.sha256(source["model.safetensors"]).hexdigest()
    assert ids["config.json"].kind == GIT_BLOB
    blob = b"blob %d\0" % len(source["config.json"]) + source["config.json"]
    assert ids["config.json"].hex == hashlib.sha1(blob).hexdigest()
    assert {file.path: file.size for file in snapshot.files} == {
        path: len(data) for path, data in source.items()
    }


def test_commit_id_is_its_own_name(hub: HubServer) -> None:
    revision = hub.revision(REPOSITORY)

    assert client().resolve(REPOSITORY, revision).commit.revision == revision


def test_body_starts_where_it_was_asked_to(hub: HubServer) -> None:
    commit = client().resolve(REPOSITORY, "main").commit
    data = tiny_source()["model.safetensors"]

    with client().open(commit, "model.safetensors", offset=99_000) as body:
        assert (body.offset, body.size) == (99_000, len(data))
        assert b"".join(body.chunks) == data[99_000:]


def test_93_revision_that_is_not_there(hub: HubServer) -> None:
    error = refusal(revision="v9")

    assert isinstance(error, HubError)
    assert error.message == f"revision v9 of {REPOSITORY} is gone from 127.0.0.1"
    assert "airpack lock" in (error.hint or "")


def test_repository_that_is_not_there_is_told_from_a_revision(hub: HubServer) -> None:
    error = refusal(repository="org/typo")

    assert error.message == "org/typo is not on 127.0.0.1, or it is private (HTTP 401)"
    assert "spelling" in (error.hint or "")


def test_name_that_no_repository_has(hub: HubServer) -> None:
    error = refusal(repository="a--b/c..d")

    assert isinstance(error, UsageError)
    assert hub.requests == []


def test_96_gated_repository_without_a_token(hub: HubServer) -> None:
    hub.gated.add(REPOSITORY)
    commit = client().resolve(REPOSITORY, "main").commit

    with pytest.raises(HubError, match=r"org/tiny is gated.*HTTP 401") as caught:
        read(commit, "config.json")

    assert caught.value.hint == f"accept it on {hub.endpoint}/{REPOSITORY}, set HF_TOKEN"


def test_96_gated_repository_with_a_token_that_was_not_granted_access(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    commit = client().resolve(REPOSITORY, "main").commit

    with pytest.raises(HubError, match=r"org/tiny is gated.*HTTP 403") as caught:
        read(commit, "model.safetensors")

    assert "with the account that HF_TOKEN belongs to" in (caught.value.hint or "")


def test_96_gated_repository_opens_for_a_token_that_was_granted_access(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPOSITORY)
    hub.granted.add(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    commit = client().resolve(REPOSITORY, "main").commit

    assert read(commit, "config.json") == tiny_source()["config.json"]


def test_96_token_that_the_hub_does_not_know(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrong")

    error = refusal()

    assert "does not accept the token (HTTP 401)" in error.message
    assert "hf_wrong" not in error.message + (error.hint or "")


def test_96_plain_403(hub: HubServer) -> None:
    hub.answer(HubServer.API, 403)

    assert "may not read it (HTTP 403)" in refusal().message


def test_97_429_and_5xx_then_recovery(hub: HubServer) -> None:
    hub.answer(HubServer.API, 429, headers={"Retry-After": "2"})
    hub.answer(HubServer.API, 502)
    watching = Watching()

    client(watching).resolve(REPOSITORY, "main")

    assert len(watching.notes) == 2
    assert "HTTP 429" in watching.notes[0]
    assert "HTTP 502" in watching.notes[1]


@pytest.mark.parametrize(("status", "words"), [(429, "too many requests"), (503, "a fault")])
def test_97_429_and_5xx_that_stay(hub: HubServer, status: int, words: str) -> None:
    hub.answer(HubServer.API, status, times=9)

    error = refusal()

    assert words in error.message
    assert f"HTTP {status}" in error.message
    assert len(hub.requests) == 3


def test_98_metadata_redirected_to_another_host_do_not_take_the_token_along(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.api_redirect = hub.cdn

    error = refusal()

    assert [request.server for request in hub.requests] == ["hub", "cdn"]
    assert "authorization" in hub.requests[0].headers
    assert "authorization" not in hub.requests[1].headers
    assert TOKEN not in error.message


def test_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({}) as gone:
        endpoint = gone.endpoint
    monkeypatch.setenv("HF_ENDPOINT", endpoint)

    error = refusal()

    assert "127.0.0.1 cannot be reached" in error.message
    assert "refused" in error.message


def test_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub.internal")

    assert "not the address of a hub" in refusal().message


def test_page_that_is_not_a_hubs(hub: HubServer) -> None:
    hub.answer(HubServer.API, 200)

    assert "does not answer as a hub does" in refusal().message


def test_password_in_the_endpoint_is_in_no_message(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("//", "//user:passw0rd@"))
    hub.gated.add(REPOSITORY)
    commit = HubCommit(REPOSITORY, hub.revision(REPOSITORY))

    with pytest.raises((HubError, RetryableError)) as caught:
        read(commit, "config.json")

    hint = getattr(caught.value, "hint", "") or ""
    assert "passw0rd" not in str(caught.value) + hint
