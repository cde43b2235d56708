"""What time it is on a host whose clock may be wrong: never earlier than what it saw signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import make_bundle, make_key
from support.hosts import Host, make_host

from packager.connected.signing.keys import SigningKey
from packager.errors import AirpackError, PolicyError, TrustError
from packager.isolated.install import install
from packager.isolated.lifecycle import uninstall
from packager.isolated.media import open_media
from packager.isolated.request import InstallRequest
from packager.isolated.trust_store import read_newest, reckoned_now, write_newest
from packager.progress import Silent
from packager.store.generations import Generation
from packager.trust.clock import NEWEST_NAME, Newest, encode_newest, parse_newest, reckon
from packager.trust.keyring import Keyring, TrustedKey

BUILT = datetime(2026, 11, 24, tzinfo=timezone.utc)  # when every bundle of the factory was
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_key(tmp_path_factory.mktemp("key") / "team")


@pytest.fixture
def host(tmp_path: Path, key: SigningKey) -> Host:
    """A host that has installed one bundle, built on the 24th, which has no expiry."""
    host = make_host(tmp_path / "home", key)
    host.install(make_bundle(tmp_path / "first", [key]))
    return host


def install_at(host: Host, bundle: Path, clock: datetime) -> None:
    """Install when the host's clock says ``clock``."""
    request = InstallRequest(
        media=open_media([bundle]), home=host.home, keyring=host.keyring, variant=None, smoke=False,
        allow_downgrade=False, operator="tester", now=clock,
    )  # fmt: skip
    install(request, Silent())


@given(st.datetimes(), st.datetimes() | st.none())
def test_now_is_the_later_of_the_clock_and_what_was_seen(
    clock: datetime, built: datetime | None
) -> None:
    clock = clock.replace(tzinfo=timezone.utc)
    newest = Newest(built.replace(tzinfo=timezone.utc), "tiny-1.0.0") if built else None
    assert reckon(clock, newest) == (max(clock, newest.built) if newest else clock)


def test_the_newest_bundle_is_remembered_whatever_is_installed_or_removed_later(
    tmp_path: Path, host: Host
) -> None:
    assert read_newest(host.home) == Newest(BUILT, "tiny-1.0.0")
    newer = Newest(BUILT + timedelta(days=99), "other-2.0.0")
    write_newest(host.home, newer)
    install_at(host, tmp_path / "first" / "tiny-1.0.0", EPOCH)
    uninstall(host.home, "tiny", None, now=EPOCH, operator="tester")
    assert read_newest(host.home) == newer


def test_19_a_clock_set_back_does_not_bring_an_expired_bundle_back(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    write_newest(host.home, Newest(BUILT + timedelta(days=30), "other-2.0.0"))
    expired = make_bundle(tmp_path / "b", [key], sequence=2, expires="2026-12-01")
    before = host.state()
    for clock in (EPOCH, BUILT):
        with pytest.raises(PolicyError, match="expired on 2026-12-01; this host takes it to be 2"):
            install_at(host, expired, clock)
        assert host.state() == before


def test_19_a_clock_set_back_does_not_bring_an_expired_key_back(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    ring = Keyring(1, (TrustedKey("team", key.public, not_after=BUILT - timedelta(days=1)),))
    bundle = make_bundle(tmp_path / "b", [key], sequence=2)
    before = host.state()
    with pytest.raises(TrustError, match="was valid until 2026-11-23"):
        install_at(replace(host, keyring=ring), bundle, EPOCH)
    assert host.state() == before


def test_19_with_a_clock_in_1970_what_was_seen_signed_tells_the_time(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, expires="2027-12-31")
    fresh = make_host(tmp_path / "fresh", key)
    with pytest.raises(PolicyError, match="takes it to be 1970-01-01, so nothing can be said"):
        install_at(fresh, bundle, EPOCH)
    assert read_newest(fresh.home) is None
    install_at(host, bundle, EPOCH)
    assert host.current() == 2


def test_what_was_refused_does_not_move_the_time(tmp_path: Path, key: SigningKey) -> None:
    host = make_host(tmp_path / "home", key)
    bundle = make_bundle(tmp_path / "b", [key])
    (bundle / "payload.00001").write_bytes(b"damaged")
    with pytest.raises(AirpackError):
        host.install(bundle)
    assert read_newest(host.home) is None
    assert reckoned_now(host.home, EPOCH) == EPOCH


def test_an_install_that_fails_at_its_last_step_leaves_the_time_as_it_was(
    tmp_path: Path, host: Host, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Generation:
        raise AirpackError("the disk is gone")

    older = Newest(BUILT - timedelta(days=1), "tiny-0.9.0")
    for before in (older, None):
        write_newest(host.home, before)
        monkeypatch.setattr("packager.isolated.install.publish", fail)
        with pytest.raises(AirpackError, match="the disk is gone"):
            host.install(make_bundle(tmp_path / f"b-{before is None}", [key], sequence=2))
        assert read_newest(host.home) == before


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"built":"soon","title":"a"}', encode_newest(Newest(BUILT, "a")) + b" "],
)
def test_a_damaged_record_is_an_error_with_a_way_out_and_never_no_record(
    tmp_path: Path, host: Host, data: bytes
) -> None:
    path = host.home.trust / NEWEST_NAME
    path.write_bytes(data)
    with pytest.raises(TrustError, match="newest bundle is damaged") as caught:
        install_at(host, tmp_path / "first" / "tiny-1.0.0", BUILT)
    assert f"then remove {path}" in (caught.value.hint or "")


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_the_record_is_read_as_it_was_written(built: datetime) -> None:
    newest = Newest(built.replace(tzinfo=timezone.utc, microsecond=0), "tiny-1.0.0")
    assert parse_newest(encode_newest(newest), "newest.json") == newest
