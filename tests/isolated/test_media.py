from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
from support.bundles import flip_bit, make_bundle, make_key
from support.hosts import Host

from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError, MissingVolumeError, TrustError, UsageError
from packager.format.bundle import INDEX_NAME
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME
from packager.isolated.media import (
    MAX_NAMES,
    DocumentKind,
    Media,
    open_media,
    read_evidence,
    read_run_key,
)

DROPPINGS = (
    ".Trash-1000", ".DS_Store", "._bundle.json", ".fseventsd", "System Volume Information",
    "$RECYCLE.BIN", "$Recycle.Bin", "Thumbs.db", "desktop.ini", "Desktop.ini", "lost+found",
    "FOUND.000",
)  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    return make_bundle(tmp_path / "stick", [key])


@pytest.fixture
def spareless(bundle: Path) -> Path:
    """The same with no spare copies left: what happens when both are gone."""
    for spare in bundle.glob("spare.*"):
        spare.unlink()
    return bundle


def test_a_bundle_is_found_in_the_directory_or_one_below(bundle: Path) -> None:
    assert open_media([bundle]).directories == (bundle,)
    assert open_media([bundle.parent]).directories == (bundle,)


def test_a_directory_named_twice_counts_once(bundle: Path) -> None:
    assert open_media([bundle, bundle.parent, bundle]).directories == (bundle,)


def test_a_hidden_copy_beside_the_bundle_does_not_count(bundle: Path) -> None:
    bundle.with_name(".Trash-1000").mkdir()
    (bundle.with_name(".Trash-1000") / SUMS_NAME).write_text("")
    assert open_media([bundle.parent]).directories == (bundle,)


def test_two_bundles_on_a_stick_ask_for_a_choice(bundle: Path, key: SigningKey) -> None:
    make_bundle(bundle.parent, [key], version="2.0.0")
    with pytest.raises(UsageError, match=r"stick: holds several .*\(tiny-1.0.0, tiny-2.0.0\)"):
        open_media([bundle.parent])


def test_what_holds_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}: not a bundle; there is no {SUMS_NAME}"):
        open_media([tmp_path])
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        open_media([tmp_path / "nowhere"])


def test_volumes_alone_are_no_bundle_and_it_is_said_what_they_lack(bundle: Path) -> None:
    for path in bundle.iterdir():
        if not path.name.startswith("payload."):
            path.unlink()
    for place in (bundle, bundle.parent):
        with pytest.raises(UsageError, match=f"{place}: not a bundle") as caught:
            open_media([place])
        assert caught.value.hint == (
            f"copy {SUMS_NAME} and {INDEX_NAME} beside {bundle / 'payload.00001'}, from another "
            "medium of the bundle"
        )


def test_a_bundle_that_lost_its_sums_is_one_still_and_it_is_said_what_helps(
    host: Host, bundle: Path
) -> None:
    for name in (SUMS_NAME, f"spare.{SUMS_NAME}"):
        (bundle / name).unlink()
    assert open_media([bundle.parent]).directories == (bundle,)
    with pytest.raises(MissingVolumeError, match=f"{SUMS_NAME} is on none of the media") as caught:
        host.verify(bundle)
    assert "name every medium of this bundle" in (caught.value.hint or "")


@pytest.mark.parametrize("place", ["itself", "above"])
def test_a_patch_is_no_bundle_and_it_is_said_what_takes_it(tmp_path: Path, place: str) -> None:
    patch = tmp_path / "stick" / "tiny-1.0.0.patch-12345678"
    patch.mkdir(parents=True)
    (patch / SUMS_NAME).write_text("")
    (patch / "patch.json").write_text("")
    with pytest.raises(UsageError, match=f"{patch}: a patch, not a bundle") as caught:
        open_media([patch if place == "itself" else patch.parent])
    assert caught.value.hint == f"airpack repair BUNDLE {patch} --in-place"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_systems_leave_on_a_stick_is_no_stranger(host: Host, bundle: Path, kind: str) -> None:
    for name in DROPPINGS:
        if kind == "file":
            (bundle / name).write_text("x")
        else:
            (bundle / name).mkdir()
    assert host.verify(bundle).ok
    host.install(bundle)
    assert host.current() == 1


@pytest.mark.parametrize("name", [SUMS_NAME, INDEX_NAME])
def test_55_a_link_in_place_of_the_evidence_is_refused(spareless: Path, name: str) -> None:
    (spareless / name).rename(spareless.parent / "elsewhere")
    (spareless / name).symlink_to(spareless.parent / "elsewhere")
    with pytest.raises(IntegrityError, match=f"{name}: not a regular file"):
        read_evidence(open_media([spareless]))


@pytest.mark.parametrize("name", [SUMS_NAME, INDEX_NAME])
def test_56_a_fifo_in_place_of_the_evidence_is_refused(spareless: Path, name: str) -> None:
    media = open_media([spareless])
    (spareless / name).unlink()
    os.mkfifo(spareless / name)
    with pytest.raises(IntegrityError, match=f"{name}: not a regular file"):
        read_evidence(media)


def test_sums_that_lead_nowhere_are_refused(spareless: Path) -> None:
    media = open_media([spareless])
    (spareless / SUMS_NAME).unlink()
    (spareless / SUMS_NAME).symlink_to("nowhere")
    with pytest.raises(IntegrityError, match=f"{SUMS_NAME}: not a regular file"):
        read_evidence(media)
    (spareless / SUMS_NAME).unlink()
    with pytest.raises(MissingVolumeError, match=f"{SUMS_NAME} is on none of the media"):
        read_evidence(media)


def test_sums_larger_than_any_sums_are_not_read(spareless: Path) -> None:
    os.truncate(spareless / SUMS_NAME, 1 << 40)
    with pytest.raises(IntegrityError, match=f"larger than the limit of {MAX_SUMS_SIZE}"):
        read_evidence(open_media([spareless]))


def test_a_signature_larger_than_any_signature_does_not_count(
    host: Host, spareless: Path, key: SigningKey
) -> None:
    os.truncate(spareless / f"{SUMS_NAME}.{key.public.key_id}.sig", 1 << 40)
    with pytest.raises(TrustError, match="no signature"):
        host.verify(spareless)


def test_12_a_hundred_thousand_signatures_are_refused_before_they_are_read(bundle: Path) -> None:
    for number in range(MAX_NAMES):
        (bundle / f"{SUMS_NAME}.{number:016x}.sig").touch()
    with pytest.raises(IntegrityError, match=f"holds more than {MAX_NAMES} files"):
        read_evidence(open_media([bundle]))


def test_two_bundles_on_two_media_are_not_one(
    tmp_path: Path, host: Host, bundle: Path, key: SigningKey
) -> None:
    other = make_bundle(tmp_path / "other", [key], version="2.0.0")
    with pytest.raises(IntegrityError, match=f"{other}: holds another bundle than tiny-1.0.0"):
        host.verify(bundle, other)


@pytest.mark.parametrize("name", [SUMS_NAME, INDEX_NAME, "signature"])
@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "link"])
def test_of_each_small_file_one_copy_may_be_bad(
    host: Host, bundle: Path, key: SigningKey, name: str, spare: bool, harm: str
) -> None:
    name = f"{SUMS_NAME}.{key.public.key_id}.sig" if name == "signature" else name
    path = bundle / (f"spare.{name}" if spare else name)
    if harm == "flip":
        flip_bit(path, 20)
    elif harm == "cut":
        os.truncate(path, 10)
    else:
        path.unlink()
    if harm == "link":
        path.symlink_to("nowhere")
    found = host.verify(bundle)
    assert {entry.volume for entry in found.damage} | {*found.missing} <= {path.name}
    assert host.install(bundle).receipt.generation == 1


@pytest.mark.parametrize("name", [SUMS_NAME, INDEX_NAME])
def test_another_signed_file_under_its_name_does_not_hide_the_spare_copy(
    host: Host, tmp_path: Path, key: SigningKey, name: str
) -> None:
    bundle = make_bundle(tmp_path / "a", [key], extra={"notes.txt": b"hello"})
    (bundle / name).write_bytes(b"hello")
    assert [entry.volume for entry in host.verify(bundle).damage] == [name]


@pytest.mark.parametrize("name", ["team.pub", "link.pub"])
def test_05_a_key_that_came_on_the_medium_does_not_vouch_for_it(
    tmp_path: Path, bundle: Path, name: str
) -> None:
    make_key(bundle / "team")
    (tmp_path / "link.pub").symlink_to(bundle / "team.pub")
    path = bundle / name if name == "team.pub" else tmp_path / name
    with pytest.raises(TrustError, match=rf"{name}: this key came on the medium") as caught:
        read_run_key(path, open_media([bundle]))
    assert caught.value.exit_code == 11


def test_a_key_from_elsewhere_is_read(tmp_path: Path, bundle: Path) -> None:
    key = make_key(tmp_path / "team")
    assert read_run_key(tmp_path / "team.pub", open_media([bundle])) == key.public


def test_labels_are_absolute_and_fit_for_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    strange = Path(os.fsdecode(b"d\xe9p\xc3\xb4t"))
    assert Media((strange,)).labels == (f"{tmp_path}/d\\udce9pôt",)


@pytest.mark.parametrize("same", [True, False], ids=["all the same", "all others"])
def test_copies_of_an_index_take_the_memory_of_two_before_a_signature_holds(
    bundle: Path, tmp_path: Path, same: bool
) -> None:
    size, places = 4 << 20, [tmp_path / f"medium{number}" for number in range(8)]
    for number, place in enumerate(places):
        shutil.copytree(bundle, place)
        for name in (INDEX_NAME, f"spare.{INDEX_NAME}"):
            (place / name).write_bytes(bytes([1 if same else number]) * size)
    media = open_media(places)
    tracemalloc.start()
    read_evidence(media, document=DocumentKind(INDEX_NAME, size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * size
