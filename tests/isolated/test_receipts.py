"""What an install leaves in writing: a receipt that a host's own key signs, and a sheet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.bundles import flip_bit, make_bundle
from support.hosts import NOW, Host

from packager.connected.signing.keys import SigningKey, generate_key
from packager.errors import HostError, IntegrityError, TrustError
from packager.format.digest import Digest
from packager.format.receipt import RECEIPT_NAME, RECEIPT_SIGNATURE_NAME
from packager.isolated.custody import sheet_of_generation
from packager.isolated.lifecycle import roll_back, verify_history
from packager.store.generations import find_generation


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    return make_bundle(tmp_path / "stick", [key])


@pytest.fixture
def host_pub(host: Host) -> Path:
    """The host has a key; this is its public half."""
    generate_key(host.home.root / "host.key", "p256", None)
    return host.home.root / "host.key.pub"


def test_a_host_with_a_key_signs_its_receipt_as_stock_openssl_checks_it(
    host: Host, bundle: Path, host_pub: Path
) -> None:
    done = host.install(bundle)

    receipt, signature = done.path / RECEIPT_NAME, done.path / RECEIPT_SIGNATURE_NAME
    check = ["openssl", "dgst", "-sha256", "-verify", str(host_pub), "-signature", str(signature)]
    assert subprocess.run([*check, str(receipt)], check=False).returncode == 0
    assert done.receipt.host_key is not None
    flip_bit(receipt, 10)
    assert subprocess.run([*check, str(receipt)], check=False).returncode == 1


def test_a_host_without_a_key_leaves_the_receipt_unsigned(host: Host, bundle: Path) -> None:
    done = host.install(bundle)
    assert done.receipt.host_key is None
    assert not (done.path / RECEIPT_SIGNATURE_NAME).exists()


def test_13_a_host_key_that_others_can_read_is_refused_before_anything(
    host: Host, bundle: Path, host_pub: Path
) -> None:
    host_pub.with_suffix("").chmod(0o640)
    before = host.state()
    with pytest.raises(TrustError, match=r"host\.key: others can read this private key"):
        host.install(bundle)
    assert host.state() == before


def test_a_host_key_that_openssl_cannot_use_is_refused_before_anything(
    host: Host, bundle: Path
) -> None:
    (host.home.root / "host.key").write_text("no key\n")
    (host.home.root / "host.key").chmod(0o600)
    before = host.state()
    with pytest.raises(HostError, match=r"host\.key: openssl cannot use this key"):
        host.install(bundle)
    assert host.state() == before


def test_109_no_openssl_is_said_so_where_it_is_needed(
    host: Host, bundle: Path, host_pub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(host_pub.parent))
    with pytest.raises(HostError, match="openssl, which signs receipts, cannot be run"):
        host.install(bundle)


@pytest.mark.usefixtures("host_pub")
@pytest.mark.parametrize("path", [":", ".:"])
def test_a_program_called_openssl_where_this_happens_to_run_is_not_run(
    host: Host, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    trap = tmp_path / "openssl"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    trap.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{path}{os.environ['PATH']}")
    assert host.install(bundle).receipt.host_key
    assert not (tmp_path / "run").exists()


def test_a_host_key_with_a_passphrase_is_refused_and_nobody_is_asked(
    host: Host, bundle: Path
) -> None:
    generate_key(host.home.root / "host.key", "p256", b"secret")
    with pytest.raises(HostError, match=r"host\.key: openssl cannot use this key"):
        host.install(bundle)


def test_a_log_that_lost_its_end_is_found_by_the_receipt_though_its_head_was_rewritten(
    host: Host, bundle: Path, tmp_path: Path, key: SigningKey
) -> None:
    host.install(bundle)
    roll_back(host.home, "tiny", 1, now=NOW, operator="tester")
    host.install(make_bundle(tmp_path / "next", [key], version="2.0.0", sequence=2))
    assert len(verify_history(host.home)) == 3

    lines = host.home.log.read_bytes().splitlines(keepends=True)
    host.home.log.write_bytes(lines[0])
    host.home.log.with_name("log.jsonl.head").write_text(
        f'{{"digest":"{Digest.of(lines[0]).hex}","events":1}}'
    )

    with pytest.raises(IntegrityError, match="the receipt of tiny generation 2 has seen 2"):
        verify_history(host.home)


def test_a_receipt_that_was_changed_is_found_by_the_log(host: Host, bundle: Path) -> None:
    receipt = host.install(bundle).path / RECEIPT_NAME
    receipt.write_bytes(receipt.read_bytes().replace(b'"tester"', b'"nobody"'))
    with pytest.raises(IntegrityError, match="receipt of tiny generation 1 is not the one"):
        verify_history(host.home)


def test_the_sheet_says_what_came_on_what_and_who_took_it_in(host: Host, bundle: Path) -> None:
    done = host.install(bundle)

    sheet = sheet_of_generation(find_generation(host.home, "tiny"))

    assert "bundle:               tiny-1.0.0, sequence 1" in sheet
    assert f"mounted at:           {bundle}" in sheet
    assert f"sha256 of SHA256SUMS: {done.receipt.bundle.hex}" in sheet
    assert "received by:          tester" in sheet
    digest = Digest.of((done.path / RECEIPT_NAME).read_bytes()).hex
    assert f"sha256 of receipt:    {digest}" in sheet
    assert sheet.count("date: ___") == 2
    assert "MP-5 a" in sheet
