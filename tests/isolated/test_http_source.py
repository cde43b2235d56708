"""A bundle behind an HTTP server in the enclave is verified and installed as from a stick."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle, make_key
from support.file_server import FileServer, serving
from support.hosts import NOW, Host
from support.tiny_source import weights as as_weights

from packager.connected.signing.keys import SigningKey
from packager.errors import (
    AirpackError,
    HostError,
    IntegrityError,
    MissingVolumeError,
    TrustError,
)
from packager.isolated import http_source
from packager.isolated.http_source import HttpSource, open_bundle_at
from packager.isolated.install import install
from packager.isolated.request import Installation, InstallRequest
from packager.progress import Silent

WEIGHTS = as_weights(random.Random(7).randbytes(9 * CHUNK_SIZE + 1234))


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    files = {"model.safetensors": WEIGHTS, "config.json": b"{}\n"}
    return make_bundle(tmp_path / "share", [key], files=files, volume_size=4 * CHUNK_SIZE)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "_PAUSE", 0.001)


def install_from(host: Host, url: str) -> Installation:
    with open_bundle_at(url, host.keyring, Silent(), now=NOW) as media:
        request = InstallRequest(
            media=media, home=host.home, keyring=host.keyring, variant=None, smoke=False,
            allow_downgrade=False, operator="tester", now=NOW,
        )  # fmt: skip
        return install(request, Silent())


def weights(done: Installation) -> bytes:
    return (done.path / "original/model.safetensors").read_bytes()


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without"])
def test_it_is_installed_and_each_volume_is_asked_for_once(
    host: Host, bundle: Path, ranges: bool
) -> None:
    with serving(FileServer(bundle, ranges=ranges)) as server:
        done = install_from(host, server.url)

    assert weights(done) == WEIGHTS
    assert [medium.path for medium in done.receipt.media] == [server.url]
    volumes = [name for name, _ in server.asked if name.startswith("payload.")]
    assert volumes == ["payload.00001", "payload.00002", "payload.00003"]
    assert (done.path / "original/model.sig").exists()


def test_an_address_without_its_last_slash_will_do(host: Host, bundle: Path) -> None:
    with serving(FileServer(bundle)) as server:
        assert weights(install_from(host, server.url.rstrip("/"))) == WEIGHTS


@pytest.mark.parametrize("cut_after", [CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE - 1])
def test_95_a_connection_that_is_cut_goes_on_where_it_broke(
    host: Host, bundle: Path, cut_after: int
) -> None:
    with serving(FileServer(bundle, cut_after=cut_after)) as server:
        assert weights(install_from(host, server.url)) == WEIGHTS
    offsets = [offset for name, offset in server.asked if name == "payload.00001"]
    assert len(offsets) > 1
    assert offsets == sorted(set(offsets))


def test_95_a_server_without_ranges_that_always_cuts_is_one_error_in_the_end(
    host: Host, bundle: Path
) -> None:
    with (
        serving(FileServer(bundle, ranges=False, cut_after=2 * CHUNK_SIZE)) as server,
        pytest.raises(HostError, match=r"payload\.00001: ended early"),
    ):
        install_from(host, server.url)


def test_97_a_server_that_fails_a_few_times_is_asked_again(host: Host, bundle: Path) -> None:
    with serving(FileServer(bundle, failures=3)) as server:
        assert weights(install_from(host, server.url)) == WEIGHTS


def test_a_server_that_always_fails_is_one_error_and_nothing_changes(
    host: Host, bundle: Path
) -> None:
    before = host.state()
    with serving(FileServer(bundle, failures=1000)) as server:
        with pytest.raises(HostError, match=r"SHA256SUMS: service unavailable"):
            install_from(host, server.url)
        assert len(server.asked) == http_source.TRIES
    assert host.state() == before


def test_no_server_is_said_so(host: Host) -> None:
    with pytest.raises(HostError, match=r"http://127\.0\.0\.1:1/x/SHA256SUMS: .*refused"):
        install_from(host, "http://127.0.0.1:1/x/")


def test_no_bundle_there_is_said_so(host: Host, tmp_path: Path) -> None:
    with serving(FileServer(tmp_path)) as server, pytest.raises(MissingVolumeError):
        install_from(host, server.url)


def test_53_a_chunk_that_comes_wrong_once_is_asked_for_again(host: Host, bundle: Path) -> None:
    spoilt: list[str] = []

    def once(name: str, _offset: int, data: bytes) -> bytes:
        if name != "payload.00002" or spoilt:
            return data
        spoilt.append(name)
        return data[:-7] + b"x" + data[-6:]

    with serving(FileServer(bundle, spoil=once)) as server:
        assert weights(install_from(host, server.url)) == WEIGHTS
    assert spoilt


def test_53_a_volume_that_is_damaged_on_the_server_is_named_and_not_installed(
    host: Host, bundle: Path
) -> None:
    flip_bit(bundle / "payload.00002", 100)
    before = host.state()
    with (
        serving(FileServer(bundle)) as server,
        pytest.raises(IntegrityError, match=r"payload\.00002: chunk 4 is damaged.*model\.safet"),
    ):
        install_from(host, server.url)
    assert host.state() == before


def test_48_a_volume_that_the_server_lacks_is_named(host: Host, bundle: Path) -> None:
    (bundle / "payload.00003").unlink()
    with (
        serving(FileServer(bundle)) as server,
        pytest.raises(MissingVolumeError, match=r"payload\.00003"),
    ):
        install_from(host, server.url)


def test_an_install_that_was_cut_off_goes_on_with_what_is_here(host: Host, bundle: Path) -> None:
    (bundle / "payload.00003").rename(bundle / "away")
    with serving(FileServer(bundle)) as server, pytest.raises(AirpackError):
        install_from(host, server.url)
    (bundle / "away").rename(bundle / "payload.00003")

    with serving(FileServer(bundle)) as server:
        assert weights(install_from(host, server.url)) == WEIGHTS
        assert ("payload.00002", 0) not in server.asked


def test_4_a_bundle_that_a_stranger_signed_is_not_installed(host: Host, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    with (
        serving(FileServer(make_bundle(tmp_path / "share", [stranger]))) as server,
        pytest.raises(TrustError),
    ):
        install_from(host, server.url)


def test_a_server_that_sends_without_end_is_stopped(host: Host, bundle: Path) -> None:
    def endless(name: str, _offset: int, data: bytes) -> bytes:
        return data if name != "SHA256SUMS" else b"x" * (2 << 20)

    with serving(FileServer(bundle, spoil=endless)) as server:
        source = HttpSource(server.url, Silent())
        (bundle / "SHA256SUMS").write_bytes(b"x" * (2 << 20))
        with pytest.raises(HostError, match="more than 1048576 bytes"):
            source.read_small("SHA256SUMS", 1 << 20)
