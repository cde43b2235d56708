"""What one signer sends never stands in the store under the name of what another sends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import make_bundle, resign
from support.hosts import Host

from packager.connected.signing.keys import SigningKey
from packager.errors import DigestMismatchError
from packager.format import canonical
from packager.format.digest import Digest

GOOD = b"good weights" * 10_000
EVIL = b"evil weights" * 10_000


def lying(tmp_path: Path, key: SigningKey) -> Path:
    """A bundle whose index gives EVIL the digest of GOOD, signed."""
    bundle = make_bundle(tmp_path / "evil", [key], name="evil", files={"model": EVIL})
    index = json.loads((bundle / "bundle.json").read_bytes())
    index["files"][0]["digest"] = Digest.of(GOOD).hex
    for name in ("bundle.json", "spare.bundle.json"):
        (bundle / name).write_bytes(canonical.encode(index))
    resign(bundle, [key])
    return bundle


def test_a_file_that_has_not_its_own_signed_digest_is_refused(
    tmp_path: Path, key: SigningKey, host: Host
) -> None:
    with pytest.raises(DigestMismatchError, match="models/evil/original/model"):
        host.install(lying(tmp_path, key))
    assert [path for path in host.home.blobs.rglob("*") if path.is_file()] == []
    assert host.partials() == {}


def test_nor_does_it_wait_to_be_gone_on_with_though_an_honest_install_had_begun_it(
    tmp_path: Path, key: SigningKey, host: Host
) -> None:
    part = host.home.partial("good", Digest.of(GOOD))
    part.parent.mkdir(parents=True)
    part.write_bytes(GOOD[:100_000])
    with pytest.raises(DigestMismatchError):
        host.install(lying(tmp_path, key))
    assert not host.home.partials.exists()


def test_it_does_not_touch_the_file_that_it_claims_to_be(
    tmp_path: Path, key: SigningKey, host: Host
) -> None:
    good = make_bundle(tmp_path / "good", [key], name="good", files={"model": GOOD})
    with pytest.raises(DigestMismatchError):
        host.install(lying(tmp_path, key))
    assert (host.install(good).path / "original" / "model").read_bytes() == GOOD


def test_a_blob_that_rotted_is_read_from_the_medium_again(
    tmp_path: Path, key: SigningKey, host: Host
) -> None:
    bundle = make_bundle(tmp_path / "good", [key], name="good", files={"model": GOOD})
    host.install(bundle)
    blob = host.home.blob(Digest.of(GOOD))
    blob.chmod(0o644)
    blob.write_bytes(EVIL)
    assert (host.install(bundle).path / "original" / "model").read_bytes() == GOOD
