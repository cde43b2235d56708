"""A patch for a ticket: only what was asked for, only what has its digest, or nothing."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle, make_key
from support.hosts import in_small_disk
from support.watching import Watching

from packager.connected.packing.ticket import build_patch
from packager.connected.signing.keys import SigningKey
from packager.errors import (
    AirpackError,
    DigestMismatchError,
    IntegrityError,
    MissingVolumeError,
    UsageError,
)
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.patch import CHUNKS_NAME, PATCH_NAME, parse_patch
from packager.format.sums import SUMS_NAME, parse_sums, signature_name, spare_name
from packager.format.ticket import Ticket, encode_ticket, make_ticket
from packager.progress import Silent


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return make_key(tmp_path / "a.key")


@pytest.fixture
def source(tmp_path: Path, key: SigningKey) -> Path:
    """A bundle of seven chunks in volumes of two, as it was built."""
    files = {"model.safetensors": random.Random(3).randbytes(6 * CHUNK_SIZE + 16_384)}
    return make_bundle(
        tmp_path / "built", [key], files=files, volume_size=2 * CHUNK_SIZE, parity=1,
        extra={"notes.txt": b"hello"},
    )  # fmt: skip


def ticket_for(source: Path, *chunks: int) -> Ticket:
    return make_ticket(index_of(source), Digest.of((source / SUMS_NAME).read_bytes()), chunks)


def index_of(source: Path) -> Bundle:
    return parse_bundle((source / "bundle.json").read_bytes())


def test_the_patch_holds_the_chunks_and_little_else(
    source: Path, tmp_path: Path, key: SigningKey
) -> None:
    ticket = ticket_for(source, 1, 6, 8)  # the last of the payload, and one of parity
    watching = Watching()
    patch = build_patch(ticket, source, tmp_path / "out", [key], watching)
    assert patch == tmp_path / "out" / f"tiny-1.0.0.patch-{ticket.check}"
    small = (PATCH_NAME, SUMS_NAME, "READ-ME-FIRST.txt", signature_name(key.public.key_id))
    names = {path.name for path in patch.iterdir()}
    assert names == {CHUNKS_NAME, *small, *map(spare_name, small)}
    payload = b"".join(path.read_bytes() for path in sorted(source.glob("payload.*")))
    parity = (source / "parity.00001").read_bytes()
    expected = payload[CHUNK_SIZE : 2 * CHUNK_SIZE] + payload[6 * CHUNK_SIZE :]
    assert (patch / CHUNKS_NAME).read_bytes() == expected + parity[CHUNK_SIZE:]
    document = parse_patch((patch / PATCH_NAME).read_bytes())
    assert [chunk.number for chunk in document.chunks] == [1, 6, 8]
    assert document.bundle == Digest.of((source / SUMS_NAME).read_bytes())
    assert sum(path.stat().st_size for path in patch.iterdir()) - document.size < 8000
    assert [(task.total, task.done) for task in watching.tasks] == [(document.size, document.size)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [patch.name]


def test_the_patch_holds_small_files_behind_the_chunks(
    source: Path, tmp_path: Path, key: SigningKey
) -> None:
    sums = parse_sums((source / SUMS_NAME).read_bytes())
    line = [*sums].index("notes.txt") + 1
    digest = Digest.of((source / SUMS_NAME).read_bytes())
    ticket = make_ticket(index_of(source), digest, (6,), {line: sums["notes.txt"]})
    patch = build_patch(ticket, source, tmp_path / "out", [key], Silent())
    document = parse_patch((patch / PATCH_NAME).read_bytes())
    assert [file.name for file in document.files] == ["notes.txt"]
    assert (patch / CHUNKS_NAME).read_bytes().endswith(b"hello")
    assert "files      notes.txt" in (patch / "READ-ME-FIRST.txt").read_text()

    alone = make_ticket(index_of(source), digest, (), {line: sums["notes.txt"]})
    patch = build_patch(alone, source, tmp_path / "out", [key], Silent())
    assert (patch / CHUNKS_NAME).read_bytes() == b"hello"


def test_a_small_file_that_is_bad_at_the_source_too_is_not_sent(
    source: Path, tmp_path: Path
) -> None:
    sums = parse_sums((source / SUMS_NAME).read_bytes())
    digest = Digest.of((source / SUMS_NAME).read_bytes())
    lines = {[*sums].index("notes.txt") + 1: sums["notes.txt"]}
    ticket = make_ticket(index_of(source), digest, (), lines)
    flip_bit(source / "notes.txt", 0)
    error = refused(ticket, source, tmp_path / "out")
    assert isinstance(error, IntegrityError)
    assert f"{source / 'notes.txt'}: is damaged here too" in error.message
    (source / "notes.txt").unlink()
    assert isinstance(refused(ticket, source, tmp_path / "out"), MissingVolumeError)


def test_stock_tools_check_the_patch(source: Path, tmp_path: Path, key: SigningKey) -> None:
    patch = build_patch(ticket_for(source, 0), source, tmp_path / "out", [key], Silent())
    subprocess.run(["sha256sum", "--quiet", "-c", SUMS_NAME], cwd=patch, check=True)
    signature = signature_name(key.public.key_id)
    command = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "a.key.pub"]
    command += ["-signature", signature, SUMS_NAME]
    subprocess.run(command, cwd=patch, check=True, capture_output=True)
    text = (patch / "READ-ME-FIRST.txt").read_bytes().decode("ascii")
    assert "airpack repair BUNDLE PATCH --in-place" in text
    assert key.public.key_id in text


def test_the_same_ticket_gives_the_same_bytes(
    source: Path, tmp_path: Path, key: SigningKey
) -> None:
    made = [
        build_patch(ticket_for(source, 0, 3), source, tmp_path / place, [], Silent())
        for place in ("a", "b")
    ]
    first, second = ({p.name: p.read_bytes() for p in patch.iterdir()} for patch in made)
    assert first == second


def refused(ticket: Ticket, source: Path, output: Path) -> AirpackError:
    with pytest.raises(AirpackError) as caught:
        build_patch(ticket, source, output, [], Silent())
    assert not output.exists() or [*output.iterdir()] == []
    return caught.value


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"title": "other-1.0.0"}, "the ticket is for other-1.0.0"),
        ({"bundle": "0" * 32}, "with 0000000000000000"),
        ({"chunks": (1, 3)}, "the ticket's digests are not those of chunks 1 3"),
        ({"chunks": (1, 2000)}, "has 9 chunks; the ticket asks for chunk 2000"),
        ({"digests": "0" * 8}, "the ticket's digests are not those of chunks 1-2"),
        ({"files": (1,)}, "the ticket's digests are not those of chunks 1-2 and lines 1 of the"),
        ({"files": (3,)}, "line 3 of its SHA256SUMS is no small file"),
        ({"files": (99,)}, "line 99 of its SHA256SUMS is no small file"),
    ],
)
def test_a_ticket_for_something_else_is_refused(
    source: Path, tmp_path: Path, change: dict[str, str], fact: str
) -> None:
    error = refused(replace(ticket_for(source, 1, 2), **change), source, tmp_path / "out")
    assert isinstance(error, UsageError)
    assert str(source) in error.message
    assert fact in error.message


def test_what_is_no_bundle_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(ticket_for(source, 1), tmp_path / "empty", tmp_path / "out")
    assert isinstance(error, UsageError)
    assert "not a bundle's directory" in error.message


def test_an_index_that_was_changed_is_refused(source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(source, 1)
    flip_bit(source / "bundle.json", 50)
    error = refused(ticket, source, tmp_path / "out")
    assert isinstance(error, DigestMismatchError)
    assert str(source / "bundle.json") in error.message


def test_a_chunk_that_is_bad_at_the_source_too_is_not_sent(source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(source, 1, 2)
    flip_bit(source / "payload.00002", 3)
    error = refused(ticket, source, tmp_path / "out")
    assert isinstance(error, IntegrityError)
    assert f"{source / 'payload.00002'}: chunk 2 (bytes 0 to 65536) is damaged" in error.message
    (source / "payload.00002").unlink()
    assert isinstance(refused(ticket, source, tmp_path / "out"), MissingVolumeError)


def test_an_unfinished_patch_of_a_killed_run_is_replaced(source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(source, 1)
    left = tmp_path / "out" / f".tiny-1.0.0.patch-{ticket.check}.unfinished"
    left.mkdir(parents=True)
    (left / CHUNKS_NAME).write_bytes(b"half")
    build_patch(ticket, source, tmp_path / "out", [], Silent())
    assert not left.exists()


def test_a_patch_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    patch = build_patch(ticket_for(source, 1), source, tmp_path / "out", [], Silent())
    (patch / CHUNKS_NAME).write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"{patch}: exists already"):
        build_patch(ticket_for(source, 1), source, tmp_path / "out", [], Silent())
    assert (patch / CHUNKS_NAME).read_bytes() == b"mine"


def test_99_a_full_disk_leaves_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(encode_ticket(ticket_for(source, 0, 1, 2, 3)))
    (tmp_path / "disk").mkdir()
    command = (
        f'"{sys.executable}" -m packager build "{source}" --for-ticket "{tmp_path / "t"}" '
        '-o "$PLACE"; code=$?; ls -A "$PLACE"; exit $code'
    )
    done = in_small_disk(tmp_path / "disk", "128k", command)
    assert (done.returncode, done.stdout) == (13, "")
    assert CHUNKS_NAME in done.stderr
