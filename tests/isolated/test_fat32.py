"""A bundle on sticks of FAT32: every name, every byte, and no volume beyond what a stick takes."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, make_bundle
from support.fat32 import Stick, make_stick
from support.hosts import Host
from support.tiny_source import weights

from packager.connected.packing.layout import Member, plan_payload
from packager.connected.signing.keys import SigningKey
from packager.errors import UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.sums import encode_sums
from packager.format.volumes import MAX_PAYLOAD_SIZE

MIB = 1 << 20
LIMIT = (
    1 << 32
) - 1  # bytes; Microsoft, "FAT32 File System Specification", 1.03: a size is 32 bits
MODEL = weights(random.Random(3).randbytes(30 * CHUNK_SIZE + 777))
LONG_NAME = f"LICENSE.{'x' * 105}.txt"  # 117 of the 120 bytes that a name may have


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    return make_stick(tmp_path / "stick.img", 40 * MIB)


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    """Volumes of the size that is chosen where nobody asks for one, and two of parity."""
    return make_bundle(
        tmp_path / "built", [key], files={"model.safetensors": MODEL}, parity=2,
        extra={"setup.sh": b"exit 0\n", "READ-ME-FIRST.txt": b"read\n", LONG_NAME: b"licence\n"},
    )  # fmt: skip


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_bundle_comes_back_from_a_stick_with_every_name_and_byte(
    stick: Stick, bundle: Path, host: Host, tmp_path: Path
) -> None:
    assert stick.put(bundle).returncode == 0
    assert stick.names(bundle.name) == sorted(path.name for path in bundle.iterdir())
    back = stick.take(bundle.name, tmp_path / "back")
    assert contents(back) == contents(bundle)
    assert host.verify(back).ok
    assert (host.install(back).path / "original" / "model.safetensors").read_bytes() == MODEL


def test_two_sticks_with_half_of_the_volumes_each_are_one_bundle_in_any_order(
    bundle: Path, host: Host, tmp_path: Path
) -> None:
    volumes = sorted([*bundle.glob("payload.*"), *bundle.glob("parity.*")])
    backs = []
    for number in (0, 1):
        share = Path(shutil.copytree(bundle, tmp_path / f"share{number}" / bundle.name))
        for volume in volumes[1 - number :: 2]:
            (share / volume.name).unlink()
        stick = make_stick(tmp_path / f"stick{number}.img", 40 * MIB)
        assert stick.put(share).returncode == 0
        backs.append(stick.take(bundle.name, tmp_path / f"back{number}"))
    assert host.verify(*backs).ok
    assert host.verify(*reversed(backs)).ok
    installed = host.install(*reversed(backs)).path / "original" / "model.safetensors"
    assert installed.read_bytes() == MODEL


def test_a_stick_holds_one_of_two_names_that_differ_in_case_and_sums_refuse_both(
    stick: Stick, tmp_path: Path
) -> None:
    for name in ("payload.00001", "PAYLOAD.00001"):
        (tmp_path / name).write_text(name)
        stick.put(tmp_path / name)
    assert stick.names() == ["payload.00001"]
    assert stick.take("payload.00001", tmp_path / "back").read_text() == "payload.00001"
    digest = Digest.of(b"")
    with pytest.raises(UnsafeContentError):
        encode_sums({"payload.00001": digest, "PAYLOAD.00001": digest})


def test_a_stick_refuses_a_file_of_4_gib_and_not_one_of_a_byte_less(
    stick: Stick, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, LIMIT + 1)
    assert "too big" in stick.put(file).stderr
    os.truncate(file, LIMIT)
    assert stick.put(file).stderr == "Disk full\n"  # of 40 MiB; a larger one would take it
    assert stick.names() == []


@given(
    st.integers(1, MAX_PAYLOAD_SIZE - 4096) | st.integers(LIMIT - 4096, 64 << 32),
    st.none() | st.sampled_from([LIMIT, LIMIT + 1, 1 << 31, 1 << 30]),
    st.integers(0, 8),
)
def test_no_planned_volume_of_either_kind_is_beyond_what_a_stick_takes(
    size: int, volume_size: int | None, parity: int
) -> None:
    members = [Member("models/tiny/original/model", Path("nowhere"), size, Digest.of(b""))]
    try:
        plan = plan_payload(members, volume_size, parity)
    except UsageError:  # more volumes than there may be
        assert volume_size is not None or size > (255 - parity) * (LIMIT - (4 << 20))
        return
    assert max(plan.cut.sizes) <= LIMIT
    assert sum(volume.size for volume in plan.volumes) == plan.layout.size
