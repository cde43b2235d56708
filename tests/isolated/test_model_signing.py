"""Model signatures on the media: checked, mended, copied, installed, and accepted by others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import flip_bit, keyring_of, make_bundle, make_key
from support.hosts import NOW, Host, make_host
from support.model_signing_package import accepts, sign_folder
from support.tiny_source import weights
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle
from packager.errors import IntegrityError
from packager.format.model_signature import MAX_MODEL_SIGNATURE_SIZE, parse_model_signature
from packager.isolated.copy import copy_share
from packager.isolated.lifecycle import free_space, roll_back, uninstall
from packager.isolated.media import open_media
from packager.isolated.repair import repair
from packager.isolated.source import open_source
from packager.isolated.spread import plan_copy
from packager.progress import Silent
from packager.store.generations import find_generation

FILES = {
    "model.safetensors": weights(bytes(range(256)) * 300),
    "sub/config.json": b"{}\n",
    "empty": b"",
}
Tamper = Callable[[Path], object]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public half of ``signer``."""
    return tmp_path_factory.mktemp("signer") / "team.pub"


@pytest.fixture(scope="module")
def signer(public: Path) -> SigningKey:
    return make_key(public.with_suffix(""))


@pytest.fixture
def bundle(tmp_path: Path, signer: SigningKey) -> Path:
    return make_bundle(tmp_path / "stick", [signer], files=FILES, volume_size=1 << 17)


@pytest.fixture
def receiver(tmp_path: Path, signer: SigningKey) -> Host:
    return make_host(tmp_path / "home", signer)


def name_of(key: SigningKey, variant: str = "original") -> str:
    return f"{variant}.{key.public.key_id}.model.sig"


def unpacked(bundle: Path, place: Path) -> Path:
    """The variant's folder, as a sender without airpack has it from the volumes."""
    place.mkdir()
    script = 'cat "$0"/payload.0* | tar -x -C "$1"'
    subprocess.run(["sh", "-c", script, bundle, place], check=True)
    return place / "models" / "tiny" / "original"


def verify_command(folder: Path, signature: Path, public: Path) -> list[str]:
    """The very command that docs/MODEL_SIGNING.md names."""
    command = [Path(sys.executable).with_name("model_signing"), "verify", "key", folder]
    command += ["--signature", signature, "--public_key", public, "--no-ignore-git-paths"]
    return [str(word) for word in command]


def test_the_package_accepts_the_folder_before_and_after_the_trip(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey, public: Path
) -> None:
    before = unpacked(bundle, tmp_path / "before")
    after = receiver.install(bundle).path / "original"

    for folder, signature in ((before, bundle / name_of(signer)), (after, after / "model.sig")):
        said = subprocess.run(
            verify_command(folder, signature, public), check=True, capture_output=True, text=True
        )
        assert said.stdout == "Verification succeeded\n"
    assert accepts(after, bundle / name_of(signer), public)  # the other lies in the folder


@pytest.mark.parametrize(
    "tamper",
    [
        lambda folder: flip_bit(folder / "model.safetensors", 700),
        lambda folder: (folder / "added").write_bytes(b""),
        lambda folder: (folder / ".gitignore").write_bytes(b""),
        lambda folder: (folder / "sub" / "model.sig").write_bytes(b""),
        lambda folder: (folder / "empty").unlink(),
        lambda folder: (folder / "empty").rename(folder / "void"),
        lambda folder: flip_bit(folder / "model.sig", 400),
    ],
    ids=["changed", "added", "hidden", "added below", "removed", "renamed", "signature"],
)
def test_the_package_refuses_a_folder_that_was_tampered_with(
    tmp_path: Path, bundle: Path, receiver: Host, public: Path, tamper: Tamper
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(receiver.install(bundle).path / "original", folder)
    assert accepts(folder, folder / "model.sig", public)
    for path in folder.glob("**/*"):
        path.chmod(0o755)
    tamper(folder)
    assert not accepts(folder, folder / "model.sig", public)


def test_a_signature_by_the_package_itself_is_installed(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey, public: Path
) -> None:
    made = sign_folder(unpacked(bundle, tmp_path / "unpacked"), public.with_suffix(""))
    (bundle / f"spare.{name_of(signer)}").unlink()
    (bundle / name_of(signer)).write_bytes(made.read_bytes())

    assert receiver.verify(bundle).ok
    installed = receiver.install(bundle).path / "original" / "model.sig"
    written, signed = (
        parse_model_signature(path.read_bytes(), path.name) for path in (installed, made)
    )
    assert written == signed


def test_the_installed_signature_is_as_unchangeable_as_the_files_beside_it(
    bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    path = receiver.install(bundle).path / "original" / "model.sig"
    assert path.read_bytes() == (bundle / name_of(signer)).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o444
    generation = find_generation(receiver.home, "tiny")
    assert generation.size == sum(map(len, FILES.values()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip_bit(path, 300),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b'{"a":' * 5000),
        lambda path: path.write_bytes(bytes(MAX_MODEL_SIGNATURE_SIZE + 1)),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
        lambda path: path.unlink(),
    ],
    ids=["flipped", "empty", "deep", "huge", "a link", "gone"],
)
def test_bad_copy_is_named_mended_and_the_spare_one_installed(
    bundle: Path, receiver: Host, signer: SigningKey, damage: Tamper
) -> None:
    path = bundle / name_of(signer)
    good = path.read_bytes()
    damage(path)

    found = receiver.verify(bundle)
    assert [file.name for file in found.small_faults] == [path.name]
    assert found.repairable
    installed = receiver.install(bundle).path / "original" / "model.sig"
    assert installed.read_bytes() == good
    assert repair(found, open_media([bundle]), None, Silent()).small_files == (path,)
    assert path.read_bytes() == good
    assert receiver.verify(bundle).ok


def test_signature_over_other_files_is_a_fault_and_is_not_installed(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    other = make_bundle(tmp_path / "other", [signer], files={"model.safetensors": b"older"})
    names = (name_of(signer), f"spare.{name_of(signer)}")
    for name in names:
        shutil.copyfile(other / name, bundle / name)

    found = receiver.verify(bundle)
    assert {entry.volume for entry in found.damage} == set(names)
    assert not found.repairable
    watching = Watching()
    done = receiver.install(bundle, progress=watching)
    assert not (done.path / "original" / "model.sig").exists()
    assert any(f"{names[0]}: does not hold" in note for note in watching.notes)


def test_bundle_without_model_signatures_is_whole(
    bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    for path in bundle.glob("*.model.sig"):
        path.unlink()
    assert receiver.verify(bundle).ok
    done = receiver.install(bundle)
    assert sorted(p.name for p in (done.path / "original").iterdir()) == [
        "empty", "model.safetensors", "sub",
    ]  # fmt: skip


def test_of_several_signers_the_first_trusted_one_is_installed(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey, public: Path
) -> None:
    second, stranger = make_key(tmp_path / "second"), make_key(tmp_path / "stranger")
    for key in (second, stranger, make_key(tmp_path / "quantum", "ml-dsa-87")):
        sign_bundle(bundle, key)
    both = Host(receiver.home, keyring_of(signer, second))

    done = both.install(bundle)
    first = min((signer, second), key=lambda key: key.public.key_id)
    assert done.receipt.signers[0] == first.public.key_id
    placed = done.path / "original" / "model.sig"
    assert placed.read_bytes() == (bundle / name_of(first)).read_bytes()
    flip_bit(bundle / name_of(stranger), 300)  # which nobody here can check
    assert both.verify(bundle).ok


def test_what_nobody_signed_in_a_model_signature_is_not_installed(
    bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    made = (bundle / name_of(signer)).read_bytes()
    for name in (name_of(signer), f"spare.{name_of(signer)}"):
        (bundle / name).write_bytes(made[:-1] + b',"zzz":"#!/bin/sh anything"}')
    done = receiver.install(bundle)
    assert (done.path / "original" / "model.sig").read_bytes() == made


@pytest.mark.parametrize(
    "kind",
    [
        "a directory",
        "a link",
        "too large",
        "of no variant",
        "of no variant, by a signer",
        "a spare of a spare",
        "a signature too large",
    ],
)
def test_54_what_is_only_called_as_a_signature_is_a_stranger_and_is_not_copied(
    bundle: Path, receiver: Host, signer: SigningKey, kind: str
) -> None:
    names = {
        "of no variant": "q4.0123456789abcdef.model.sig",
        "of no variant, by a signer": f"q4.{signer.public.key_id}.model.sig",
        "a spare of a spare": f"spare.spare.{name_of(signer)}",
        "a signature too large": "SHA256SUMS.0123456789abcdef.sig",
    }
    stranger = bundle / names.get(kind, "original.0123456789abcdef.model.sig")
    if kind == "a directory":
        stranger.mkdir()
        (stranger / "run-me.sh").write_text("#!/bin/sh\n")
    elif kind == "a link":
        stranger.symlink_to("/etc/hostname")
    else:
        stranger.write_bytes(b"x")
    if "too large" in kind:
        with stranger.open("rb+") as file:
            file.truncate(MAX_MODEL_SIGNATURE_SIZE * 10)

    assert receiver.verify(bundle).strangers == (stranger,)
    assert open_source(bundle).strangers == (stranger,)
    with pytest.raises(IntegrityError, match=f"{stranger}: not part of the signed bundle"):
        receiver.install(bundle)


def test_every_medium_gets_the_model_signatures(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey
) -> None:
    source = open_source(bundle)
    targets = [tmp_path / "a", tmp_path / "b"]
    for target in targets:
        target.mkdir()
    for share in plan_copy(source, targets, source.volume_names).shares:
        copy_share(source, share, Silent(), verify=True)
        copied = share.directory / name_of(signer)
        assert copied.read_bytes() == (bundle / copied.name).read_bytes()
    assert receiver.verify(*(target / bundle.name for target in targets)).ok


def test_variant_with_a_model_sig_of_its_own_keeps_it(
    tmp_path: Path, receiver: Host, signer: SigningKey
) -> None:
    files = {"model.sig": b"as it was", "model.safetensors": weights(bytes(100))}
    done = receiver.install(make_bundle(tmp_path / "own", [signer], files=files))
    assert (done.path / "original" / "model.sig").read_bytes() == b"as it was"


def test_rollback_and_uninstall_take_the_signature_with_the_generation(
    tmp_path: Path, bundle: Path, receiver: Host, signer: SigningKey, public: Path
) -> None:
    receiver.install(bundle)
    files = {"model.safetensors": weights(bytes(110))}
    newer = make_bundle(tmp_path / "b", [signer], version="2", sequence=2, files=files)
    receiver.install(newer)
    for number, source in ((2, newer), (1, bundle)):
        folder = receiver.home.models / "tiny" / "current" / "original"
        assert accepts(folder, folder / "model.sig", public)
        assert (folder / "model.sig").read_bytes() == (source / name_of(signer)).read_bytes()
        assert receiver.current() == number
        if number == 2:
            roll_back(receiver.home, "tiny", None, now=NOW, operator="tester")

    uninstall(receiver.home, "tiny", None, now=NOW, operator="tester")
    freed = free_space(receiver.home, now=NOW, operator="tester")
    assert freed == sum(map(len, (*FILES.values(), *files.values())))
    assert not (receiver.home.models / "tiny").exists()
