"""Others who have accounts on the host change neither what it trusts nor what it holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import keyring_of, make_bundle, make_key
from support.hosts import NOW, Host

from packager.connected.signing.keys import SigningKey
from packager.errors import HostError, TrustError
from packager.isolated.install import install
from packager.isolated.media import open_media
from packager.isolated.request import InstallRequest
from packager.isolated.trust_store import read_keyring, write_keyring
from packager.progress import Silent


@pytest.fixture
def careless() -> Iterator[None]:
    """An account whose files anybody may change, unless somebody says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_what_is_installed_is_nobody_else_s_to_change_whatever_the_umask(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    host.install(make_bundle(tmp_path / "bundle", [key]))
    open_to_others = [
        path
        for path in host.home.root.rglob("*")
        if path.lstat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not path.is_symlink()
    ]
    assert open_to_others == []


@pytest.mark.parametrize("place", ["root", "trust"])
def test_a_keyring_that_others_could_write_is_not_believed(host: Host, place: str) -> None:
    directory = getattr(host.home, place)
    directory.chmod(0o1777)
    with pytest.raises(HostError, match="others may write here") as refused:
        read_keyring(host.home)
    assert f"chmod go-w {directory}" in (refused.value.hint or "")
    directory.chmod(0o755)
    assert read_keyring(host.home).keys


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_keyring_of_another_account_is_not_believed(host: Host) -> None:
    os.chown(host.home.trust, 65534, 65534)
    with pytest.raises(HostError, match="belongs to another user"):
        read_keyring(host.home)


@pytest.mark.parametrize("change", ["revoked", "another threshold"])
def test_10_what_is_changed_while_a_person_looks_for_the_next_medium_counts(
    tmp_path: Path, host: Host, key: SigningKey, change: str
) -> None:
    request = InstallRequest(
        media=open_media([make_bundle(tmp_path / "bundle", [key])]), home=host.home,
        keyring=read_keyring(host.home), variant=None, smoke=False, allow_downgrade=False,
        operator="tester", now=NOW,
    )  # fmt: skip
    if change == "revoked":
        write_keyring(host.home, host.keyring.with_revoked(key.public.key_id, "stolen"))
    else:
        write_keyring(host.home, keyring_of(key, make_key(tmp_path / "other"), threshold=2))
    with pytest.raises(TrustError):
        install(request, Silent())
    assert not host.home.models.exists()


def test_the_log_tells_a_key_that_was_named_for_one_run_alone(tmp_path: Path, host: Host) -> None:
    visitor = make_key(tmp_path / "visitor")
    guests = Host(host.home, host.keyring.with_run_keys([visitor.public]))
    guests.install(make_bundle(tmp_path / "bundle", [visitor]))
    [event] = [event for event in host.events() if event.what == "install"]
    assert event.details["trusted_for_this_run"] == [visitor.public.key_id]
