from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, flip_bit, keyring_of, make_bundle, make_key
from support.hosts import Host, make_host
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.errors import AirpackError
from packager.isolated.verify import Damage, Verification
from packager.store.home import Home

VOLUME_SIZE = 2 * CHUNK_SIZE
FILES = {
    "model.safetensors": weights(random.Random(1).randbytes(256 << 10)),
    "config.json": b"{}\n",
}
MODEL, CONFIG = (f"models/tiny/original/{name}" for name in FILES)
FIRST, SECOND, LAST = "payload.00001", "payload.00002", "payload.00003"


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    """Three volumes of two chunks, but the last, which has one short chunk."""
    extra = {"notes.txt": b"hello"}
    made = make_bundle(tmp_path / "stick", [key], files=FILES, volume_size=VOLUME_SIZE, extra=extra)
    assert sorted(path.name for path in made.glob("payload.*")) == [FIRST, SECOND, LAST]
    return made


def split(bundle: Path, *names: str) -> Path:
    """Move ``names`` to a second medium, which gets all the small files too."""
    other = bundle.parent.parent / "stick 2" / bundle.name
    other.mkdir(parents=True)
    for path in bundle.iterdir():
        if path.name in names:
            path.rename(other / path.name)
        elif not path.name.startswith("payload."):
            (other / path.name).write_bytes(path.read_bytes())
    return other


def states(found: Verification) -> list[tuple[str, str]]:
    return [(volume.name, volume.state) for volume in found.volumes]


def chunks(found: Verification) -> list[tuple[str, int | None, int, int]]:
    return [(d.volume, d.chunk, d.offset, d.size) for d in found.damage]


def test_a_whole_bundle_is_good_and_nothing_is_written(host: Host, bundle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    found = host.verify(bundle)
    assert found.ok
    assert states(found) == [(FIRST, "good"), (SECOND, "good"), (LAST, "good")]
    assert {v.medium for v in found.volumes} == {bundle}
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == before


@pytest.mark.parametrize("reverse", [False, True])
def test_several_media_are_one_bundle_in_any_order(host: Host, bundle: Path, reverse: bool) -> None:
    other = split(bundle, FIRST, LAST)
    media = [other, bundle] if reverse else [bundle, other]
    found = host.verify(*media)
    assert found.ok
    assert [v.medium for v in found.volumes] == [other, bundle, other]


def test_48_a_missing_volume_is_named(host: Host, bundle: Path) -> None:
    (bundle / SECOND).unlink()
    found = host.verify(bundle)
    assert (found.ok, found.missing, found.damage) == (False, (SECOND,), ())
    assert states(found)[1] == (SECOND, "missing")
    assert found.volumes[1].medium is None


def test_49_swapped_volumes_are_bad_in_every_chunk(host: Host, bundle: Path) -> None:
    (bundle / FIRST).rename(bundle / "x")
    (bundle / SECOND).rename(bundle / FIRST)
    (bundle / "x").rename(bundle / SECOND)
    found = host.verify(bundle)
    assert chunks(found) == [
        (FIRST, 0, 0, CHUNK_SIZE),
        (FIRST, 1, CHUNK_SIZE, CHUNK_SIZE),
        (SECOND, 2, 0, CHUNK_SIZE),
        (SECOND, 3, CHUNK_SIZE, CHUNK_SIZE),
    ]
    assert states(found) == [(FIRST, "bad"), (SECOND, "bad"), (LAST, "good")]


def test_50_a_volume_of_another_bundle_is_bad(
    tmp_path: Path, host: Host, bundle: Path, key: SigningKey
) -> None:
    files = {**FILES, "model.safetensors": bytes(256 * 1024)}
    other = make_bundle(tmp_path / "other", [key], files=files, volume_size=VOLUME_SIZE)
    (other / SECOND).replace(bundle / SECOND)
    found = host.verify(bundle)
    assert [c[:2] for c in chunks(found)] == [(SECOND, 2), (SECOND, 3)]
    assert all(d.files == (MODEL,) for d in found.damage)


def test_51_a_volume_on_two_media_is_read_on_both(host: Host, bundle: Path) -> None:
    other = split(bundle, LAST)
    (other / FIRST).write_bytes((bundle / FIRST).read_bytes())
    assert host.verify(bundle, other).ok
    flip_bit(other / FIRST, 5)
    found = host.verify(bundle, other)
    assert found.damage == (Damage(other, FIRST, 0, 0, CHUNK_SIZE, (MODEL,)),)
    assert [(v.name, v.medium, v.state) for v in found.volumes] == [
        (FIRST, bundle, "good"),
        (FIRST, other, "repairable"),
        (SECOND, bundle, "good"),
        (LAST, other, "good"),
    ]


def test_52_a_volume_cut_at_a_chunk_is_bad_from_there(host: Host, bundle: Path) -> None:
    os.truncate(bundle / SECOND, CHUNK_SIZE)
    found = host.verify(bundle)
    assert found.damage == (Damage(bundle, SECOND, 3, CHUNK_SIZE, CHUNK_SIZE, (MODEL,)),)


def test_52_an_empty_volume_is_bad_as_a_whole(host: Host, bundle: Path) -> None:
    os.truncate(bundle / SECOND, 0)
    assert [c[:2] for c in chunks(host.verify(bundle))] == [(SECOND, 2), (SECOND, 3)]


def test_52_bytes_behind_the_end_of_a_volume_are_damage(host: Host, bundle: Path) -> None:
    with (bundle / FIRST).open("ab") as stream:
        stream.write(b"xyz")
    found = host.verify(bundle)
    assert found.damage == (Damage(bundle, FIRST, None, VOLUME_SIZE, 3, ()),)
    assert states(found)[0] == (FIRST, "repairable")


def test_53_a_flipped_bit_is_named_with_volume_chunk_range_and_files(
    host: Host, bundle: Path
) -> None:
    flip_bit(bundle / LAST, 600)
    found = host.verify(bundle)
    size = (bundle / LAST).stat().st_size
    assert found.damage == (Damage(bundle, LAST, 4, 0, size, (MODEL, CONFIG)),)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, Path, list[Path]]:
    """A bundle that is put right again after each change, and all its files."""
    place = tmp_path_factory.mktemp("shared")
    key = make_key(place / "team")
    bundle = make_bundle(
        place / "stick", [key], volume_size=VOLUME_SIZE, extra={"notes.txt": b"hello"}
    )
    return make_host(place / "home", key), bundle, sorted(bundle.iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_53_one_flipped_bit_anywhere_in_any_file_is_found(
    shared: tuple[Host, Path, list[Path]], data: st.DataObject
) -> None:
    host, bundle, files = shared
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        (damage,) = host.verify(bundle).damage
        assert damage.medium / damage.volume == path
        assert damage.offset <= position < damage.offset + damage.size
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    "name", ["payload.00004", "extra", "payload.00001.bak", "autorun.inf", "SHA256SUMS.old"]
)
@pytest.mark.parametrize("on_second", [False, True])
def test_54_an_extra_file_is_named_on_whichever_medium(
    host: Host, bundle: Path, name: str, on_second: bool
) -> None:
    other = split(bundle, LAST)
    stranger = (other if on_second else bundle) / name
    stranger.write_text("x")
    found = host.verify(bundle, other)
    assert (found.ok, found.strangers) == (False, (stranger,))


@pytest.mark.parametrize("name", [SECOND, "notes.txt"])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_55_56_what_is_no_file_is_damage_and_is_not_opened(
    host: Host, bundle: Path, name: str, kind: str
) -> None:
    path = bundle / name
    path.rename(bundle.parent / "moved")
    if kind == "symlink":
        path.symlink_to(bundle.parent / "moved")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    found = host.verify(bundle)
    expected = (VOLUME_SIZE, (MODEL,)) if name == SECOND else (0, ())
    assert found.damage == (Damage(bundle, name, None, 0, *expected),)
    assert dict(states(found)).get(name, "bad") == "bad"


@pytest.mark.parametrize("sparse", [False, True])
def test_57_a_tail_of_zeros_is_bad(host: Host, bundle: Path, sparse: bool) -> None:
    path = bundle / FIRST
    if sparse:
        os.truncate(path, CHUNK_SIZE + 100)
        os.truncate(path, VOLUME_SIZE)
    else:
        path.write_bytes(path.read_bytes()[: CHUNK_SIZE + 100].ljust(VOLUME_SIZE, b"\0"))
    found = host.verify(bundle)
    assert found.damage == (Damage(bundle, FIRST, 1, CHUNK_SIZE, CHUNK_SIZE, (MODEL,)),)


def test_57_a_small_file_blown_up_to_a_terabyte_is_not_read(host: Host, bundle: Path) -> None:
    os.truncate(bundle / "notes.txt", 1 << 40)
    (damage,) = host.verify(bundle).damage
    assert (damage.volume, damage.size) == ("notes.txt", 1 << 40)


def test_a_damaged_small_file_is_named_with_its_medium(host: Host, bundle: Path) -> None:
    other = split(bundle, LAST)
    flip_bit(other / "notes.txt", 0)
    assert host.verify(bundle, other).damage == (Damage(other, "notes.txt", None, 0, 5, ()),)


@pytest.mark.parametrize("name", ["SHA256SUMS", "spare.SHA256SUMS", "notes.txt", "signature"])
def test_a_small_file_that_is_nowhere_is_missing(
    host: Host, bundle: Path, key: SigningKey, name: str
) -> None:
    name = f"SHA256SUMS.{key.public.key_id}.sig" if name == "signature" else name
    (bundle / name).unlink()
    found = host.verify(bundle)
    assert (found.ok, found.missing, found.damage) == (False, (name,), ())
    assert found.repairable == (name != "notes.txt")


def test_a_small_file_that_one_medium_lacks_is_a_gap_and_no_fault(host: Host, bundle: Path) -> None:
    other = split(bundle, LAST)
    (other / "notes.txt").unlink()
    found = host.verify(bundle, other)
    assert found.ok
    assert [(f.path, found.state_of(f)) for f in found.small_gaps] == [
        (other / "notes.txt", "repairable")
    ]


def test_61_a_stale_volume_of_an_earlier_build_is_a_stranger(
    tmp_path: Path, host: Host, key: SigningKey
) -> None:
    old = make_bundle(tmp_path / "old", [key], files=FILES, volume_size=VOLUME_SIZE)
    new = make_bundle(
        tmp_path / "new", [key], files={"config.json": b"{}"}, volume_size=VOLUME_SIZE
    )
    (old / LAST).rename(new / LAST)
    assert host.verify(new).strangers == (new / LAST,)


def test_who_trusts_another_key_learns_nothing_of_the_payload(
    tmp_path: Path, host: Host, bundle: Path
) -> None:
    (bundle / SECOND).unlink()
    stranger = replace(host, home=Home(tmp_path), keyring=keyring_of(make_key(tmp_path / "other")))
    with pytest.raises(AirpackError, match="none of which this host trusts") as caught:
        stranger.verify(bundle)
    assert caught.value.exit_code == 11
