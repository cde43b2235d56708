"""The signed provenance on the media: good, absent, bad, mended, copied, and another's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import flip_bit, keyring_of, make_bundle, make_key
from support.hosts import NOW, Host, make_host
from support.tiny_source import weights

from packager.cli.findings import fault_lines, verify_document, verify_text
from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle
from packager.errors import DigestMismatchError
from packager.format.envelope import MAX_ENVELOPE_SIZE
from packager.isolated.copy import copy_share
from packager.isolated.media import open_media
from packager.isolated.repair import repair
from packager.isolated.source import open_source
from packager.isolated.spread import plan_copy
from packager.isolated.verify import authenticate, verify_media
from packager.progress import Silent

STATEMENT = '{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"modèle"}]}'.encode()
EXTRA = {"provenance.json": STATEMENT, "spare.provenance.json": STATEMENT}
FILES = {"model.safetensors": weights(bytes(100)), "config.json": b"{}\n"}
Tamper = Callable[[Path], object]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_key(tmp_path_factory.mktemp("signer") / "team")


@pytest.fixture
def bundle(tmp_path: Path, signer: SigningKey) -> Path:
    return make_bundle(tmp_path / "stick", [signer], files=FILES, extra=EXTRA)


@pytest.fixture
def receiver(tmp_path: Path, signer: SigningKey) -> Host:
    return make_host(tmp_path / "home", signer)


def name_of(key: SigningKey) -> str:
    return f"provenance.{key.public.key_id}.dsse.json"


def test_verify_says_whose_envelopes_hold(tmp_path: Path, bundle: Path, signer: SigningKey) -> None:
    second = make_key(tmp_path / "second", "ml-dsa-87")
    sign_bundle(bundle, second)
    media, ring = open_media([bundle]), keyring_of(signer, second)

    found = verify_media(authenticate(media, ring, now=NOW), media, Silent())

    assert found.ok
    ids = sorted([signer.public.key_id, second.public.key_id])
    assert verify_document(found)["provenance_signers"] == ids
    assert verify_text(found).splitlines()[-2:] == [f"provenance signed by {key}" for key in ids]


def test_a_bundle_is_whole_without_any(bundle: Path, receiver: Host, signer: SigningKey) -> None:
    for name in (name_of(signer), f"spare.{name_of(signer)}"):
        (bundle / name).unlink()

    found = receiver.verify(bundle)

    assert found.ok
    assert verify_document(found)["provenance_signers"] == []
    receiver.install(bundle)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda path: flip_bit(path, 40),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(MAX_ENVELOPE_SIZE + 1)),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("provenance.json")),
    ],
    ids=["flipped", "cut", "empty", "endless", "removed", "directory", "link"],
)
def test_a_bad_one_comes_back_from_its_spare_copy(
    bundle: Path, receiver: Host, signer: SigningKey, tamper: Tamper
) -> None:
    before = (bundle / name_of(signer)).read_bytes()
    tamper(bundle / name_of(signer))

    found = receiver.verify(bundle)
    assert (found.ok, found.repairable) == (False, True)
    repair(found, open_media([bundle]), None, Silent())

    assert (bundle / name_of(signer)).read_bytes() == before
    assert receiver.verify(bundle).ok


@pytest.mark.parametrize("whose", ["another statement", "another key", "damaged"])
def test_one_that_does_not_hold_is_a_fault_and_named(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey, whose: str
) -> None:
    other = make_key(tmp_path / "other")
    extra = {"provenance.json": STATEMENT + b" "} if whose == "another statement" else EXTRA
    key = other if whose == "another key" else signer
    made = make_bundle(tmp_path / "elsewhere", [key], files=FILES, extra=extra)
    data = bytearray((made / name_of(key)).read_bytes())
    if whose == "damaged":
        data[-20] ^= 1
    for name in (name_of(signer), f"spare.{name_of(signer)}"):
        (bundle / name).write_bytes(data)

    found = receiver.verify(bundle)

    assert (found.ok, found.repairable) == (False, False)
    assert verify_document(found)["provenance_signers"] == []
    assert any("no copy here is signed over provenance.json" in line for line in fault_lines(found))
    receiver.install(bundle)  # what it believes rests on the sums


def test_those_of_keys_that_nobody_here_trusts_are_passed_over(
    tmp_path: Path, bundle: Path, receiver: Host
) -> None:
    sign_bundle(bundle, other := make_key(tmp_path / "other"))
    flip_bit(bundle / name_of(other), 40)

    found = receiver.verify(bundle)

    assert found.ok


def test_a_copy_has_them(tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey) -> None:
    source = open_source(bundle)
    (tmp_path / "medium").mkdir()
    for share in plan_copy(source, [tmp_path / "medium"], source.volume_names).shares:
        copy_share(source, share, Silent(), verify=True)

    [copy] = (tmp_path / "medium").iterdir()
    for name in (name_of(signer), f"spare.{name_of(signer)}"):
        assert (copy / name).read_bytes() == (bundle / name).read_bytes()
    assert receiver.verify(copy).ok


def test_a_damaged_provenance_is_not_signed(tmp_path: Path, bundle: Path) -> None:
    flip_bit(bundle / "provenance.json", 5)
    second = make_key(tmp_path / "second")
    before = sorted(path.name for path in bundle.iterdir())

    with pytest.raises(DigestMismatchError, match=r"provenance\.json: not the file"):
        sign_bundle(bundle, second)

    added = {path.name for path in bundle.iterdir()} - {*before}
    assert not any(name.endswith("dsse.json") or "SHA256SUMS" in name for name in added)


def test_each_medium_of_several_is_looked_at(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "stick 2" / bundle.name))
    flip_bit(other / name_of(signer), 40)

    found = receiver.verify(bundle, other)

    assert [(entry.medium, entry.volume) for entry in found.damage] == [(other, name_of(signer))]
    assert found.repairable
