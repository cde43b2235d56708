from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from support.bundles import make_bundle

from .conftest import Host


@pytest.mark.parametrize("algorithm", ["p256", "ml-dsa-87"])
def test_a_key_pair_is_two_files_and_its_id_is_the_first_line(
    host: Host, tmp_path: Path, algorithm: str
) -> None:
    key = tmp_path / "team.key"
    done = host.airpack("keys", "generate", key, "--no-passphrase", "--algorithm", algorithm)
    assert done.code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    shown = host.airpack("keys", "show", f"{key}.pub", "--json").document
    assert shown["key_id"] == done.out.splitlines()[0] == shown["fingerprint"][:16]
    assert shown["algorithm"] == algorithm


def test_the_key_id_is_what_openssl_says(host: Host, tmp_path: Path) -> None:
    key_id = host.airpack("keys", "generate", tmp_path / "k", "--no-passphrase").out.split("\n")[0]
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", tmp_path / "k.pub", "-outform", "DER"],
        capture_output=True,
        check=True,
    )
    assert hashlib.sha256(der.stdout).hexdigest()[:16] == key_id


def test_without_a_terminal_the_passphrase_must_be_said_to_be_there_or_not(
    host: Host, tmp_path: Path
) -> None:
    done = host.airpack("keys", "generate", tmp_path / "k", stdin="secret\nsecret\n")
    assert done.code == 2
    assert "try: --passphrase-file F, or --no-passphrase" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_is_never_an_argument(host: Host, tmp_path: Path) -> None:
    done = host.airpack("keys", "generate", tmp_path / "k", "--passphrase", "secret")
    assert done.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_from_a_file_opens_the_key_again(host: Host, tmp_path: Path) -> None:
    key, secret, wrong = tmp_path / "k", tmp_path / "secret", tmp_path / "wrong"
    secret.write_text("open sesame\n")
    wrong.write_text("open barley\n")
    assert host.airpack("keys", "generate", key, "--passphrase-file", secret).code == 0
    assert "ENCRYPTED" in key.read_text()
    bundle = make_bundle(tmp_path / "out", [])
    refused = host.airpack("sign", bundle, "--key", key, "--passphrase-file", wrong)
    assert refused.code == 11
    assert f"{key}: wrong passphrase" in refused.err
    assert list(bundle.glob("*.sig")) == []
    assert host.airpack("sign", bundle, "--key", key).code == 2
    assert host.airpack("sign", bundle, "--key", key, "--passphrase-file", secret).code == 0
    assert host.airpack("verify", bundle, "--pub", f"{key}.pub").code == 0


def test_a_signature_of_stock_openssl_is_taken_and_a_wrong_one_is_not(
    host: Host, tmp_path: Path
) -> None:
    key, signature = tmp_path / "k", tmp_path / "sig"
    host.airpack("keys", "generate", key, "--no-passphrase")
    bundle = make_bundle(tmp_path / "out", [])
    sign = ["openssl", "dgst", "-sha256", "-sign", key, "-out", signature]
    words = ["sign", bundle, "--import", signature, "--pub", f"{key}.pub"]
    subprocess.run([*sign, bundle / "bundle.json"], check=True)
    assert host.airpack(*words).code == 11
    assert list(bundle.glob("*.sig")) == []
    subprocess.run([*sign, bundle / "SHA256SUMS"], check=True)
    assert host.airpack(*words).code == 0
    assert host.airpack("verify", bundle, "--pub", f"{key}.pub").code == 0
