"""No small file is precious: bad or gone, it comes back from a second copy, or is named."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle, make_key
from support.hosts import Host, make_host
from support.tickets import contents
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import sign_bundle
from packager.errors import HostError, IntegrityError, MissingVolumeError, TrustError
from packager.format.bundle import INDEX_NAME
from packager.format.sums import SUMS_NAME, signature_name, spare_name
from packager.isolated.media import open_media
from packager.isolated.repair import Repair, repair
from packager.isolated.verify import Verification
from packager.progress import Silent

WHEEL = "airpack.whl"  # its bytes lie in the payload too
NOTES = "notes.txt"  # its bytes lie nowhere else
SIGNATURE = "signature"
TWICE = (SUMS_NAME, INDEX_NAME, SIGNATURE, "setup.sh")
HARMS = ("flip", "cut", "empty", "remove", "directory", "link")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    wheel = random.Random(4).randbytes(CHUNK_SIZE + 77)
    files = {
        "model.safetensors": weights(random.Random(3).randbytes(4 * CHUNK_SIZE)),
        "wheel": wheel,
    }
    script = {"setup.sh": b"exit 0\n", "spare.setup.sh": b"exit 0\n"}
    return make_bundle(
        tmp_path_factory.mktemp("pristine"), [key], files=files, volume_size=2 * CHUNK_SIZE,
        parity=1, extra={WHEEL: wheel, NOTES: b"hello", **script},
    )  # fmt: skip


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "a" / pristine.name))


@pytest.fixture
def other(pristine: Path, tmp_path: Path) -> Path:
    """A second medium."""
    return Path(shutil.copytree(pristine, tmp_path / "b" / pristine.name))


def named(name: str, key: SigningKey, *, spare: bool = False) -> str:
    """The name of the file, or of its spare copy; that of the signature has the key's id."""
    full = signature_name(key.public.key_id) if name == SIGNATURE else name
    return spare_name(full) if spare else full


def harm(path: Path, kind: str) -> None:
    if kind == "flip":
        flip_bit(path, path.stat().st_size // 2)
    elif kind in ("cut", "empty"):
        os.truncate(path, path.stat().st_size // 2 if kind == "cut" else 0)
    else:
        path.unlink()
    if kind == "directory":
        path.mkdir()
    if kind == "link":
        path.symlink_to("nowhere")


def mend(host: Host, *media: Path, to: Path | None = None) -> Repair:
    return repair(host.verify(*media), open_media(media), to, Silent())


def faults(found: Verification) -> dict[Path, str]:
    """What is bad or missing, and the word for it."""
    return {file.path: found.state_of(file) for file in found.small_faults}


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("name", TWICE)
def test_each_of_two_copies_is_put_back_from_the_other(
    host: Host, bundle: Path, pristine: Path, key: SigningKey, name: str, spare: bool, kind: str
) -> None:
    path = bundle / named(name, key, spare=spare)
    harm(path, kind)
    found = host.verify(bundle)
    if name == SIGNATURE and spare and kind == "remove":  # it may have been dropped in as one file
        assert found.ok
        assert [file.path for file in found.small_gaps] == [path]
    else:
        assert (found.ok, found.repairable) == (False, True)
        assert faults(found) == {path: "repairable"}
    assert mend(host, bundle).small_files == (path,)
    assert contents(bundle) == contents(pristine)
    assert host.verify(bundle).ok


@pytest.mark.parametrize("kind", HARMS)
def test_a_wheel_is_put_back_from_the_payload(
    host: Host, bundle: Path, pristine: Path, kind: str
) -> None:
    harm(bundle / WHEEL, kind)
    flip_bit(bundle / "payload.00003", 5)  # where its copy lies, within the reach of parity
    found = host.verify(bundle)
    assert found.repairable
    assert faults(found) == {bundle / WHEEL: "repairable"}
    mend(host, bundle)
    assert contents(bundle) == contents(pristine)


def test_a_wheel_whose_copy_in_the_payload_is_lost_too_is_beyond_repair(
    host: Host, bundle: Path
) -> None:
    (bundle / WHEEL).unlink()
    (bundle / "payload.00003").unlink()
    (bundle / "parity.00001").unlink()
    before = contents(bundle)
    found = host.verify(bundle)
    assert not found.repairable
    assert faults(found) == {bundle / WHEEL: "missing"}
    assert found.lost_files == {}  # the chunks that a ticket asks for bring it
    with pytest.raises(MissingVolumeError, match=r"payload\.00003, .*are lost"):
        mend(host, bundle)
    assert contents(bundle) == before


@pytest.mark.parametrize("kind", HARMS)
def test_what_has_no_second_copy_comes_from_another_medium(
    host: Host, bundle: Path, other: Path, pristine: Path, kind: str
) -> None:
    harm(other / NOTES, kind)
    found = host.verify(bundle, other)
    if kind == "remove":  # nothing of the bundle is missing
        assert found.ok
        assert [file.path for file in found.small_gaps] == [other / NOTES]
    else:
        assert found.repairable
        assert faults(found) == {other / NOTES: "repairable"}
    mend(host, bundle, other)
    assert contents(other) == contents(pristine)


@pytest.mark.parametrize("kind", ["flip", "remove"])
def test_what_is_lost_everywhere_is_named_and_all_else_is_mended(
    host: Host, bundle: Path, other: Path, kind: str
) -> None:
    for medium in (bundle, other):
        harm(medium / NOTES, kind)
        harm(medium / INDEX_NAME, "cut")
    flip_bit(other / "payload.00001", 9)
    found = host.verify(bundle, other)
    assert not found.repairable
    state = "bad" if kind == "flip" else "missing"
    assert {faults(found)[medium / NOTES] for medium in (bundle, other)} == {state}
    assert len(found.lost_files) == 1
    done = mend(host, bundle, other)
    assert done.beyond == (NOTES,)
    assert {*done.small_files} == {bundle / INDEX_NAME, other / INDEX_NAME}
    assert done.volumes == (other / "payload.00001",)
    assert {*faults(host.verify(bundle, other))} == {bundle / NOTES, other / NOTES}


def test_a_medium_whose_sums_are_gone_is_known_by_its_index(
    host: Host, bundle: Path, other: Path, pristine: Path
) -> None:
    for name in (SUMS_NAME, spare_name(SUMS_NAME)):
        (other / name).unlink()
    (other / spare_name(INDEX_NAME)).unlink()
    for volume in sorted(bundle.glob("payload.*"))[1:]:
        volume.unlink()
    assert host.verify(bundle, other).ok
    mend(host, bundle, other)
    assert contents(other) == contents(pristine)


def test_to_another_place_goes_a_whole_medium_and_the_source_is_left_alone(
    host: Host, bundle: Path, pristine: Path, tmp_path: Path, key: SigningKey
) -> None:
    for name in (SUMS_NAME, INDEX_NAME, SIGNATURE, "setup.sh", WHEEL):
        harm(bundle / named(name, key), "flip")
    before = contents(bundle)
    done = mend(host, bundle, to=tmp_path / "more")
    assert contents(bundle) == before
    small = {n: d for n, d in contents(pristine).items() if not n.startswith(("payload", "parity"))}
    made = tmp_path / "more" / bundle.name
    assert contents(made) == small
    assert {path.parent for path in done.small_files} == {made}
    assert host.verify(bundle, made).repairable
    mend(host, bundle, made)
    assert contents(bundle) == contents(pristine)


def test_to_another_place_goes_nothing_where_each_file_has_a_good_copy(
    host: Host, bundle: Path, other: Path, tmp_path: Path
) -> None:
    harm(bundle / NOTES, "flip")
    harm(other / SUMS_NAME, "flip")
    assert mend(host, bundle, other, to=tmp_path / "more") == Repair((), 0)
    assert not (tmp_path / "more").exists()


def test_files_that_lie_in_each_others_places_are_put_right(
    host: Host, bundle: Path, pristine: Path
) -> None:
    names = (NOTES, "setup.sh", SUMS_NAME)
    data = [(bundle / name).read_bytes() for name in names]
    for name, wrong in zip(names, (*data[1:], data[0]), strict=True):
        (bundle / name).write_bytes(wrong)
    (bundle / "spare.setup.sh").unlink()
    assert host.verify(bundle).repairable
    mend(host, bundle)
    assert contents(bundle) == contents(pristine)


def test_a_directory_with_things_in_it_is_left_alone(host: Host, bundle: Path) -> None:
    harm(bundle / SUMS_NAME, "directory")
    (bundle / SUMS_NAME / "mine").write_text("precious")
    harm(bundle / WHEEL, "flip")
    before = (bundle / WHEEL).read_bytes()
    with pytest.raises(HostError, match=f"{bundle / SUMS_NAME}: a directory with things in it"):
        mend(host, bundle)
    assert (bundle / SUMS_NAME / "mine").read_text() == "precious"
    assert (bundle / WHEEL).read_bytes() == before


def test_of_two_signatures_each_may_have_another_copy_bad(
    bundle: Path, tmp_path: Path, key: SigningKey
) -> None:
    second = make_key(tmp_path / "second")
    sign_bundle(bundle, second)
    whole = contents(bundle)
    strict = make_host(tmp_path / "strict", key)
    ring = strict.keyring.with_run_keys([second.public]).with_threshold(2)
    strict = Host(strict.home, ring)
    flip_bit(bundle / named(SIGNATURE, key), 20)
    flip_bit(bundle / named(SIGNATURE, second, spare=True), 20)
    assert len(strict.verify(bundle).verified.signers) == 2
    mend(strict, bundle)
    assert contents(bundle) == whole


def test_a_signature_bad_in_both_copies_comes_from_another_medium(
    host: Host, bundle: Path, other: Path, pristine: Path, key: SigningKey
) -> None:
    for spare in (False, True):
        flip_bit(bundle / named(SIGNATURE, key, spare=spare), 20)
    mend(host, bundle, other)
    assert contents(bundle) == contents(pristine)
    for medium in (bundle, other):
        for spare in (False, True):
            flip_bit(medium / named(SIGNATURE, key, spare=spare), 20)
    with pytest.raises(TrustError, match="not a signature by"):
        host.verify(bundle, other)


def test_of_a_signature_by_an_unknown_key_nobody_says_which_copy_is_right(
    host: Host, bundle: Path, other: Path, tmp_path: Path
) -> None:
    unknown = make_key(tmp_path / "unknown")
    sign_bundle(bundle, unknown)
    path = bundle / named(SIGNATURE, unknown)
    true = path.read_bytes()
    flip_bit(path, 20)
    found = host.verify(bundle)
    both = {path, bundle / named(SIGNATURE, unknown, spare=True)}
    assert faults(found) == dict.fromkeys(both, "bad")
    assert (found.repairable, found.lost_files) == (False, {})
    assert {*mend(host, bundle).beyond} == {path.name for path in both}
    shutil.copy(bundle / named(SIGNATURE, unknown, spare=True), other / path.name)
    assert faults(host.verify(bundle, other)) == {path: "repairable"}  # two say the same
    mend(host, bundle, other)
    assert path.read_bytes() == true


def test_what_is_too_large_for_a_signature_is_bad_whoever_made_it(
    host: Host, bundle: Path, tmp_path: Path
) -> None:
    path = bundle / named(SIGNATURE, make_key(tmp_path / "unknown"))
    path.write_bytes(bytes(100_000))
    assert faults(host.verify(bundle)) == {path: "bad"}


def test_a_signature_dropped_in_alone_is_no_fault_and_gets_its_spare_copy(
    host: Host, bundle: Path, tmp_path: Path
) -> None:
    elsewhere = make_key(tmp_path / "hsm")
    sign_bundle(bundle, elsewhere)
    whole = contents(bundle)
    spare = bundle / named(SIGNATURE, elsewhere, spare=True)
    spare.unlink()
    assert host.verify(bundle).ok
    assert mend(host, bundle, to=tmp_path / "more") == Repair((), 0)
    assert mend(host, bundle).small_files == (spare,)
    assert contents(bundle) == whole


def test_a_source_that_changes_in_between_is_not_put_in_its_place(host: Host, bundle: Path) -> None:
    harm(bundle / INDEX_NAME, "cut")
    cut = (bundle / INDEX_NAME).read_bytes()
    found = host.verify(bundle)
    flip_bit(bundle / spare_name(INDEX_NAME), 60)
    with pytest.raises(IntegrityError, match="gives other bytes than a moment ago"):
        repair(found, open_media([bundle]), None, Silent())
    assert (bundle / INDEX_NAME).read_bytes() == cut
    assert not [*bundle.glob(".tmp-*")]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_small_files_bad_on_one_medium_come_back_from_the_other(
    host: Host, pristine: Path, tmp_path: Path, draw: st.DataObject
) -> None:
    shutil.rmtree(tmp_path / "case", ignore_errors=True)
    first, second = (
        Path(shutil.copytree(pristine, tmp_path / "case" / n / pristine.name)) for n in "ab"
    )
    volumes = ("payload.", "parity.")
    names = sorted(p.name for p in pristine.iterdir() if not p.name.startswith(volumes))
    hit = draw.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    if {SUMS_NAME, spare_name(SUMS_NAME), INDEX_NAME, spare_name(INDEX_NAME)} <= {*hit}:
        hit.remove(SUMS_NAME)  # else nothing says which bundle it is
    for name in hit:
        harm(first / name, draw.draw(st.sampled_from(HARMS)))
    assert mend(host, first, second).beyond == ()
    assert contents(first) == contents(pristine)
    assert contents(second) == contents(pristine)
