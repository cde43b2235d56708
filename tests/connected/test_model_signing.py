"""Model signatures that a sender adds: which there are, and what they are not made over."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.model_signing import model_signature_sizes
from packager.connected.signing.sign import sign_bundle
from packager.errors import DigestMismatchError
from packager.format.bundle import INDEX_NAME, parse_bundle
from packager.format.digest import Digest
from packager.format.model_signature import folder_digests
from packager.trust.model_signature import check_model_signature


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return make_key(tmp_path / "a.key")


def model_signatures(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.glob("*.model.sig"))


def test_each_variant_gets_a_signature_over_just_its_files(tmp_path: Path, key: SigningKey) -> None:
    bundle = make_bundle(tmp_path / "b", [key], files={"sub/a": b"a", "b": b"b"})
    name = f"original.{key.public.key_id}.model.sig"
    assert model_signatures(bundle) == [name, f"spare.{name}"]

    data = (bundle / name).read_bytes()
    files = {"sub/a": Digest.of(b"a"), "b": Digest.of(b"b")}
    check_model_signature(data, key.public.spki, files, name)
    assert (bundle / f"spare.{name}").read_bytes() == data


def test_the_files_that_a_delta_leaves_out_are_signed_too(tmp_path: Path, key: SigningKey) -> None:
    files = {"kept": b"same", "new": b"new"}
    bundle = make_bundle(tmp_path / "b", [key], files=files, held={"kept": "tiny-0.9"})
    data = (bundle / f"original.{key.public.key_id}.model.sig").read_bytes()
    signed = {name: Digest.of(content) for name, content in files.items()}
    check_model_signature(data, key.public.spki, signed, "model.sig")


def test_an_ml_dsa_key_signs_the_sums_alone(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", [])
    key_id = sign_bundle(bundle, make_key(tmp_path / "quantum", "ml-dsa-87"))
    assert (bundle / f"SHA256SUMS.{key_id}.sig").is_file()
    assert model_signatures(bundle) == []


def test_an_index_that_the_sums_do_not_list_is_not_signed(tmp_path: Path, key: SigningKey) -> None:
    bundle = make_bundle(tmp_path / "b", [])
    other = make_bundle(tmp_path / "other", [], version="2")
    (bundle / INDEX_NAME).write_bytes((other / INDEX_NAME).read_bytes())

    with pytest.raises(DigestMismatchError, match=r"bundle\.json: not the file"):
        sign_bundle(bundle, key)
    assert not list(bundle.glob("*.sig"))


def test_the_room_that_signatures_take_is_known_before(tmp_path: Path, key: SigningKey) -> None:
    bundle = make_bundle(tmp_path / "b", [key])
    index = parse_bundle((bundle / INDEX_NAME).read_bytes())
    files = folder_digests(index, index.variants[0])
    assert set(files) == {"model.safetensors", "config.json"}
    [size] = model_signature_sizes(index, [key.public])
    assert size == (bundle / f"original.{key.public.key_id}.model.sig").stat().st_size
