"""``SHA256SUMS``: coreutils takes ours, and ours takes nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import flip_bit

from packager.errors import MalformedError, UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.sums import (
    MAX_SUMS_SIZE,
    SUMS_NAME,
    carries_key_id,
    encode_sums,
    parse_sums,
    signature_key_id,
    signature_name,
)

ZERO = Digest.of(b"")
SIGNATURE = signature_name("0123456789abcdef")
GOOD = encode_sums({"bundle.json": ZERO, "payload.00001": Digest.of(b"1"), "setup.sh": ZERO})


def sha256sum_accepts(folder: Path) -> bool:
    command = ["sha256sum", "--check", "--strict", "--quiet", SUMS_NAME]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def test_coreutils_checks_what_we_write(tmp_path: Path) -> None:
    files = {"payload.00001": b"\0" * 100_000, "READ-ME-FIRST.txt": b"", "a_b-1.0.whl": b"wheel"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    sums = encode_sums({name: Digest.of(data) for name, data in files.items()})
    (tmp_path / SUMS_NAME).write_bytes(sums)
    assert sha256sum_accepts(tmp_path)
    flip_bit(tmp_path / "payload.00001", 99_999)
    assert not sha256sum_accepts(tmp_path)


def test_we_read_what_coreutils_writes(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_bytes(b"{}")
    command = ["sha256sum", "bundle.json"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert parse_sums(made) == {"bundle.json": Digest.of(b"{}")}


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}\.[a-z0-9]{1,3}", fullmatch=True)


@given(st.dictionaries(NAMES.map(lambda n: f"x{n}"), st.binary().map(Digest.of), max_size=5))
def test_sums_are_read_as_they_were_written(digests: dict[str, Digest]) -> None:
    assert parse_sums(encode_sums(digests)) == digests


@given(data=st.data())
def test_a_changed_byte_is_refused_or_says_something_else(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    damaged[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
    try:
        sums = parse_sums(bytes(damaged))
    except MalformedError:
        return
    assert encode_sums(sums) == bytes(damaged)


LINES = GOOD.splitlines(keepends=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD[:-1], id="no-line-feed-at-the-end"),
        pytest.param(GOOD + b"\n", id="an-empty-line"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="carriage-returns"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte-order-mark"),
        pytest.param(b"# comment\n" + GOOD, id="comment"),
        pytest.param(GOOD.replace(b"  ", b" *"), id="binary-marks"),
        pytest.param(GOOD.replace(b"  ", b" "), id="one-space"),
        pytest.param(b"\\" + GOOD, id="escaped-name"),
        pytest.param(GOOD.upper(), id="upper-case-digests"),
        pytest.param(b"0" * 40 + LINES[0][64:], id="a-sha1"),
        pytest.param(b"".join(reversed(LINES)), id="out-of-order"),
        pytest.param(LINES[0] + GOOD, id="a-name-twice"),
        pytest.param(GOOD.replace(b"payload", b"../load"), id="another-directory"),
        pytest.param(GOOD.replace(b"setup.sh", b"se tup.sh"), id="a-space-in-a-name"),
        pytest.param(GOOD.replace(b"setup.sh", b".setup.sh"), id="hidden"),
        pytest.param(GOOD.replace(b"setup.sh", b"zeile\xff"), id="not-ascii"),
        pytest.param(LINES[0].replace(b"b", b"B", 1) + GOOD, id="digest-case"),
        pytest.param(LINES[0][:66] + b"BUNDLE.json\n" + GOOD, id="43-two-names-but-for-case"),
        pytest.param(b"0" * 64 + b"  " + b"n" * 121 + b"\n", id="name-over-120-bytes"),
        pytest.param(LINES[0][:66] + b"aux\n" + GOOD, id="42-device-name"),
        pytest.param(bytes(MAX_SUMS_SIZE + 1), id="over-the-limit"),
    ],
)
def test_sums_that_differ_from_what_airpack_writes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match=r"\ASHA256SUMS: ") as caught:
        parse_sums(data)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        SUMS_NAME, f"spare.{SUMS_NAME}", SIGNATURE, f"spare.{SIGNATURE}", SUMS_NAME.lower(),
        "q8_0.0123456789abcdef.model.sig", "spare.q8_0.0123456789abcdef.model.sig",
    ],
)  # fmt: skip
def test_sums_that_list_what_is_made_when_they_are_there_are_refused(name: str) -> None:
    data = encode_sums({"bundle.json": ZERO, name: ZERO})
    with pytest.raises(MalformedError, match=rf"\ASHA256SUMS: lists {name}, as sums cannot"):
        parse_sums(data)


def test_names_that_some_medium_cannot_hold_are_never_written() -> None:
    for names in (("é",), ("a b",), ("a/b",), ("n" * 121,), ("A", "a"), ("nul.txt",)):
        with pytest.raises(UnsafeContentError):
            encode_sums(dict.fromkeys(names, ZERO))


def test_more_names_than_a_host_reads_are_refused_at_the_build() -> None:
    names = [f"payload.{number:05d}" for number in range(1, 16_000)]
    with pytest.raises(UsageError, match="15999 files are more than a host reads") as caught:
        encode_sums(dict.fromkeys(names, ZERO))
    assert caught.value.hint == "choose larger volumes"


@pytest.mark.parametrize(
    ("name", "key_id", "keyed"),
    [
        (signature_name("0123456789abcdef"), "0123456789abcdef", True),
        ("SHA256SUMS.0123456789ABCDEF.sig", None, False),
        ("SHA256SUMS.0123456789abcde.sig", None, False),
        ("SHA256SUMS.0123456789abcdef.sig\n", None, False),
        ("xSHA256SUMS.0123456789abcdef.sig", None, False),
        ("provenance.0123456789abcdef.dsse.json", None, True),
        ("q4_k_m.0123456789abcdef.model.sig", None, True),
        ("payload.00001", None, False),
        ("evil.sh\n.0123456789abcdef.sig", None, False),
    ],
)
def test_files_that_signers_add_later_are_told_by_their_names(
    name: str, key_id: str | None, keyed: bool
) -> None:
    assert signature_key_id(name) == key_id
    assert carries_key_id(name) is keyed
