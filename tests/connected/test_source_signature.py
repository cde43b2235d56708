"""A publisher's model signature, made by the package that publishers use, and what a build says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.bundles import make_key
from support.hub_server import HubServer
from support.model_signing_package import sign_folder
from support.tiny_source import CARD, RECIPE, tiny_source
from support.watching import Watching

from packager.connected.cache import Cache
from packager.connected.lock import resolve
from packager.connected.source.signature import check_source_signature
from packager.errors import AirpackError, MalformedError, TrustError, UsageError
from packager.format.lock import Lock, encode_lock, parse_lock
from packager.format.recipe import parse_recipe

REPOSITORY = "org/tiny"
HUB = "hub: org/tiny, signed_by: publisher.pub"
FOLDER = "path: source, signed_by: publisher.pub"


def make_publisher(place: Path, curve: ec.EllipticCurve) -> Path:
    """A key pair ``publisher`` and ``publisher.pub``."""
    private = ec.generate_private_key(curve)
    key = place / "publisher"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key()
    key.with_suffix(".pub").write_bytes(
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return key


def write_source(folder: Path) -> None:
    for path, data in tiny_source().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with a source that its publisher signed, and no hub yet."""
    write_source(tmp_path / "source")
    sign_folder(tmp_path / "source", make_publisher(tmp_path, ec.SECP256R1()))
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def hub(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: place / "source"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def recipe_with(source: str) -> str:
    return RECIPE.replace("hub: org/tiny", source)


def check(place: Path, source: str = FOLDER, *, progress: Watching | None = None) -> Lock:
    """Lock the recipe in ``place`` and check the signature, as a build does."""
    recipe, watching = parse_recipe(recipe_with(source)), progress or Watching()
    cache = Cache(place / "cache")
    lock = resolve(recipe, place, watching, cache=cache)
    check_source_signature(recipe, place, lock, cache, watching)
    return lock


def refusal(place: Path, source: str = FOLDER) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        check(place, source)
    return caught.value


@pytest.mark.parametrize("source", [HUB, FOLDER])
def test_signature_of_the_publisher_holds_before_weights_are_fetched(
    place: Path, hub: HubServer, source: str
) -> None:
    watching = Watching()
    lock = check(place, source, progress=watching)

    assert lock.signature is not None
    assert lock.signature.file.path == "model.sig"
    assert "holds over all 5 files; 4 more that are signed are not wanted" in watching.notes[-1]
    assert "model.sig" not in [file.path for file in lock.files]
    assert "model.safetensors" not in hub.files_fetched


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=["P-384", "P-521"])
def test_publishers_may_sign_with_longer_keys(place: Path, curve: ec.EllipticCurve) -> None:
    (place / "source" / "model.sig").unlink()
    sign_folder(place / "source", make_publisher(place, curve))
    assert check(place).signature is not None


@pytest.mark.parametrize("source", [HUB, FOLDER])
def test_file_that_changed_since_it_was_signed_stops_the_build(place: Path, source: str) -> None:
    (place / "source" / "README.md").write_bytes(CARD + b"!")
    with HubServer({REPOSITORY: place / "source"}) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        error = refusal(place, source)
        assert "model.safetensors" not in hub.files_fetched
    assert type(error) is TrustError
    assert error.message == "README.md: not the file that the source's model.sig is over"


def test_file_that_came_later_stops_the_build_until_it_is_left_out(place: Path) -> None:
    (place / "source" / "chat_template.jinja").write_bytes(b"{{ messages }}")
    error = refusal(place)
    assert type(error) is TrustError
    assert error.message.startswith("chat_template.jinja: is not among the files")
    assert "source.exclude" in (error.hint or "")
    assert check(place, f"{FOLDER}, exclude: [chat_template.jinja]").signature


def test_file_under_another_name_than_it_was_signed_stops_the_build(place: Path) -> None:
    folder = place / "source"
    (folder / "LICENSE").rename(folder / "LICENSE.md")
    assert refusal(place).message.startswith("LICENSE.md: is not among the files")


def test_signed_file_that_is_not_fetched_is_no_fault(place: Path) -> None:
    (place / "source" / "training_args.bin").unlink()
    assert check(place).signature is not None


def test_signature_by_another_key_stops_the_build(place: Path) -> None:
    make_key(place / "other")
    error = refusal(place, "path: source, signed_by: other.pub")
    assert type(error) is TrustError
    assert error.message.startswith("model.sig: not a signature by the key ")


def test_signature_that_is_none_stops_the_build(place: Path) -> None:
    (place / "source" / "model.sig").write_bytes(b'{"mediaType":"x"}')
    assert type(refusal(place)) is MalformedError


def test_source_that_should_be_signed_and_is_not_cannot_be_locked(place: Path) -> None:
    (place / "source" / "model.sig").unlink()
    with pytest.raises(TrustError, match=r"^the source has no model\.sig"):
        resolve(parse_recipe(recipe_with(FOLDER)), place, Watching())


def test_key_that_makes_no_model_signatures_is_refused_when_locking(place: Path) -> None:
    make_key(place / "quantum", "ml-dsa-87")
    recipe = parse_recipe(recipe_with("path: source, signed_by: quantum.pub"))
    with pytest.raises(TrustError, match="ECDSA on P-256, P-384, P-521"):
        resolve(recipe, place, Watching())


def test_key_file_that_is_not_there_is_named(place: Path) -> None:
    error = refusal(place, "path: source, signed_by: nobody.pub")
    assert isinstance(error, UsageError)
    assert error.message.startswith(f"{place / 'nobody.pub'}: the recipe names this public key")


def test_key_that_was_swapped_since_the_lock_is_noticed(place: Path) -> None:
    recipe, cache = parse_recipe(recipe_with(FOLDER)), Cache(place / "cache")
    lock = resolve(recipe, place, Watching())
    make_publisher(place, ec.SECP256R1())
    with pytest.raises(UsageError, match="another key than when the recipe was locked"):
        check_source_signature(recipe, place, lock, cache, Watching())


@pytest.mark.parametrize("source", ["hub: org/tiny", "path: source"])
def test_signature_that_nobody_checks_is_pointed_out(
    place: Path, hub: HubServer, source: str
) -> None:
    watching = Watching()
    assert check(place, source, progress=watching).signature is None
    assert any("source.signed_by" in note for note in watching.notes)


def test_lock_of_a_signed_source_is_written_and_read_back(place: Path) -> None:
    lock = check(place)
    assert parse_lock(encode_lock(lock)) == lock
