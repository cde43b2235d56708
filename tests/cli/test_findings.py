"""What `verify`, `repair` and `inspect` say of small files, of deltas and of patches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle, make_key
from support.tiny_source import weights

from packager.connected.packing.ticket import build_patch
from packager.connected.signing.keys import SigningKey
from packager.format.digest import Digest
from packager.format.held import Setup, SetupFile
from packager.format.ticket import parse_ticket
from packager.progress import Silent

from .conftest import Host

FILES = {"model.safetensors": weights(bytes(range(256)) * 1024), "wheel": b"a wheel"}


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return make_key(tmp_path / "team.key")


@pytest.fixture
def first(tmp_path: Path, key: SigningKey, host: Host) -> Path:
    """A medium with small files of each kind, before a host that trusts its signer."""
    assert host.airpack("trust", "add", tmp_path / "team.key.pub").code == 0
    extra = {"a.whl": b"a wheel", "notes.txt": b"hello"}
    return make_bundle(tmp_path / "a", [key], files=FILES, volume_size=CHUNK_SIZE, extra=extra)


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    """Another medium with all of it."""
    return Path(shutil.copytree(first, tmp_path / "b" / first.name))


def not_good(document: object) -> list[dict[str, object]]:
    assert isinstance(document, dict)
    return [file for file in document["small_files"] if file["state"] != "good"]


def test_each_small_file_is_listed_for_each_medium(host: Host, first: Path, second: Path) -> None:
    document = host.airpack("verify", first, second, "--json").document
    assert isinstance(document, dict)
    assert document["ok"] is True
    listed = {(file["medium"], file["name"]) for file in document["small_files"]}
    names = {path.name for path in first.iterdir() if not path.name.startswith("payload.")}
    assert listed == {(str(medium), name) for medium in (first, second) for name in names}
    assert not_good(document) == []


def test_a_bad_one_is_named_with_what_puts_it_back(host: Host, first: Path) -> None:
    flip_bit(first / "bundle.json", 9)
    flip_bit(first / "notes.txt", 0)
    (first / "a.whl").unlink()
    text = host.airpack("verify", first)
    assert text.code == 10
    assert text.out.splitlines() == [
        f"damaged: {first}/bundle.json: repair puts it back, from spare.bundle.json",
        f"damaged: {first}/notes.txt: no copy of it here is good",
        "missing: a.whl: repair puts it back, from the payload (models/tiny/original/wheel)",
    ]
    assert text.err.startswith("error: tiny-1.0.0: damaged in 2 places, 1 file missing\ntry: ")
    document = host.airpack("verify", first, "--json").document
    assert isinstance(document, dict)
    assert document["repairable"] is False
    assert document["missing"] == ["a.whl"]
    assert not_good(document) == [
        {
            "name": "a.whl",
            "medium": str(first),
            "state": "repairable",
            "source": "the payload (models/tiny/original/wheel)",
        },
        {
            "name": "bundle.json",
            "medium": str(first),
            "state": "repairable",
            "source": "spare.bundle.json",
        },
        {"name": "notes.txt", "medium": str(first), "state": "bad", "source": None},
    ]


def test_what_one_medium_lacks_is_a_warning_with_the_command_that_helps(
    host: Host, first: Path, second: Path
) -> None:
    (second / "notes.txt").unlink()
    done = host.airpack("verify", first, second)
    command = f"airpack repair {first} {second} --in-place"
    assert (done.code, command in done.err) == (0, True)
    assert f"warning: {second}: lacks notes.txt;" in done.err
    mended = host.airpack(*command.split()[1:])
    assert mended.out == f"put back: {second}/notes.txt\n1 small file put back\n"
    assert host.airpack("verify", first, second).err == ""


def test_repair_mends_what_it_can_and_names_what_it_cannot(host: Host, first: Path) -> None:
    flip_bit(first / "bundle.json", 9)
    flip_bit(first / "notes.txt", 0)
    done = host.airpack("repair", first, "--in-place", "--json")
    assert done.code == 10
    assert done.document == {
        "ok": False,
        "volumes": [],
        "chunks": 0,
        "small_files": [f"{first}/bundle.json"],
        "beyond": ["notes.txt"],
    }
    assert done.err.startswith("error: tiny-1.0.0: no copy here of notes.txt is good\n")


def test_repair_to_another_place_says_how_to_go_on(host: Host, first: Path, tmp_path: Path) -> None:
    flip_bit(first / "bundle.json", 9)
    done = host.airpack("repair", first, "--to", tmp_path / "more")
    more = tmp_path / "more" / first.name
    assert done.code == 0
    assert done.out.splitlines()[-1].endswith(f": airpack install {first} {more}")
    assert host.airpack("install", first, more, "--no-smoke").code == 0


def test_evidence_bad_in_both_copies_is_refused_with_what_to_copy(host: Host, first: Path) -> None:
    for name in ("bundle.json", "spare.bundle.json"):
        flip_bit(first / name, 9)
    done = host.airpack("verify", first, "--ticket", first.parent / "t")
    assert done.code == 10
    assert done.err.startswith("error: bundle.json: not the file that was signed\ntry: name every")
    assert not (first.parent / "t").exists()


@pytest.mark.parametrize("verb", ["verify", "copy"])
def test_a_patch_in_place_of_a_bundle_is_told_from_one(
    host: Host, first: Path, tmp_path: Path, key: SigningKey, verb: str
) -> None:
    patch = patch_of(host, first, tmp_path, key)
    done = host.airpack(verb, patch, *([tmp_path / "to"] if verb == "copy" else ()))
    assert done.code == 2
    assert f"{patch}: a patch, not a bundle" in done.err
    alone = host.airpack("repair", patch, "--in-place")
    assert (alone.code, "name the bundle" in alone.err) == (2, True)


def patch_of(host: Host, bundle: Path, tmp_path: Path, key: SigningKey) -> Path:
    """What answers the ticket for a copy of ``bundle`` without its notes and a volume."""
    built = Path(shutil.copytree(bundle, tmp_path / "built" / bundle.name))
    (bundle / "notes.txt").unlink()
    (bundle / "payload.00002").unlink()
    assert host.airpack("verify", bundle, "--ticket", tmp_path / "t").code == 12
    ticket = parse_ticket((tmp_path / "t").read_bytes(), "t")
    return build_patch(ticket, built, tmp_path / "out", [key], Silent())


def test_install_and_repair_take_a_patch(
    host: Host, first: Path, tmp_path: Path, key: SigningKey
) -> None:
    patch = patch_of(host, first, tmp_path, key)
    assert host.airpack("install", first, "--no-smoke").code == 12
    assert host.airpack("install", first, patch, "--no-smoke").code == 0
    assert host.airpack("repair", first, patch, "--in-place").code == 0
    assert host.airpack("verify", first).code == 0


def test_05_install_takes_no_key_that_came_with_the_patch(
    host: Host, first: Path, tmp_path: Path, key: SigningKey
) -> None:
    patch = patch_of(host, first, tmp_path, key)
    make_key(patch / "theirs")
    done = host.airpack("install", first, patch, "--pub", patch / "theirs.pub", "--no-smoke")
    assert (done.code, "came on the medium" in done.err) == (11, True)


def test_inspect_says_what_a_patch_holds(
    host: Host, first: Path, tmp_path: Path, key: SigningKey
) -> None:
    patch = patch_of(host, first, tmp_path, key)
    document = host.airpack("inspect", patch, "--json").document
    assert isinstance(document, dict)
    assert (document["verified"], document["kind"]) == (False, "patch")
    assert (document["bundle"], document["chunks"], document["files"]) == (
        "tiny-1.0.0", [1], ["notes.txt"],
    )  # fmt: skip
    assert document["size"] == CHUNK_SIZE + len(b"hello")
    assert document["signatures"] == [key.public.key_id]
    text = host.airpack("inspect", patch).out
    assert text.startswith("NOT VERIFIED")
    assert "patch       for tiny-1.0.0" in text


def test_inspect_says_what_a_delta_lacks_and_where_that_came(
    host: Host, tmp_path: Path, key: SigningKey
) -> None:
    held = {"model.safetensors": "tiny-1.0.0"}
    delta = make_bundle(tmp_path / "d", [key], version="2.0.0", files=FILES, held=held)
    document = host.airpack("inspect", delta, "--json").document
    assert isinstance(document, dict)
    size = len(FILES["model.safetensors"])
    assert document["kind"] == "delta"
    assert document["held"] == [{"bundle": "tiny-1.0.0", "files": 1, "size": size}]
    assert len(str(document["base"])) == 64
    text = host.airpack("inspect", delta).out
    assert "delta       without 1 file, 256 KiB, which the host must have installed:" in text
    assert "from tiny-1.0.0: 1 file, 256 KiB" in text


def test_inspect_says_that_a_delta_brings_no_airpack(
    host: Host, tmp_path: Path, key: SigningKey
) -> None:
    wheel = SetupFile("setup/a-1-any.whl", 1 << 20, Digest.of(b"a"))
    setup = Setup("tiny-1.0.0", (wheel,))
    delta = make_bundle(tmp_path / "d", [key], version="2.0.0", files=FILES, set_up_with=setup)
    document = host.airpack("inspect", delta, "--json").document
    assert isinstance(document, dict)
    assert (document["kind"], document["set_up_with"]) == ("delta", "tiny-1.0.0")
    text = host.airpack("inspect", delta).out
    assert "delta       without airpack itself, 1 MiB: the host was set up with tiny-1.0.0" in text


def test_inspect_of_a_whole_bundle_has_no_delta(host: Host, first: Path) -> None:
    document = host.airpack("inspect", first, "--json").document
    assert isinstance(document, dict)
    assert (document["kind"], document["held"], document["base"]) == ("bundle", [], None)
    assert document["set_up_with"] is None
    assert "delta" not in host.airpack("inspect", first).out
