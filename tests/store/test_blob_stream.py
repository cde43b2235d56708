"""Blobs that are written in order, past the page cache where that can be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.errors import HostError
from packager.store.blob_stream import BlobStream
from packager.store.direct import aligned_buffer, set_direct
from packager.store.partials import IncomingBlob

SIZE = 3 << 20
DATA = os.urandom(SIZE)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[tuple[IncomingBlob, ...]]:
    """Two empty files as long as DATA."""
    with ExitStack() as stack:
        made = []
        for name in ("a", "b"):
            stream = stack.enter_context((tmp_path / name).open("w+b", buffering=0))
            stream.truncate(SIZE)
            made.append(IncomingBlob(tmp_path / name, stream.fileno()))
        yield tuple(made)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_byte_lies_where_it_belongs_and_gaps_stay_as_they_were(
    blobs: tuple[IncomingBlob, ...], data: st.DataObject
) -> None:
    places = st.one_of(st.integers(0, SIZE), st.integers(0, SIZE >> 12).map(lambda n: n << 12))
    pieces = []
    for blob in blobs:
        cuts = sorted(data.draw(st.sets(places, max_size=8)) | {0, SIZE})
        taken = data.draw(st.sets(st.integers(0, len(cuts) - 2)))
        pieces += [(blob, cuts[n], cuts[n + 1]) for n in sorted(taken)]
        os.ftruncate(blob.descriptor, 0)
        os.ftruncate(blob.descriptor, SIZE)
    with BlobStream() as stream:
        for blob, begin, end in pieces:
            stream.write(blob, memoryview(DATA)[begin:end], begin)
    for blob in blobs:
        wanted = bytearray(SIZE)
        for begin, end in [(begin, end) for which, begin, end in pieces if which is blob]:
            wanted[begin:end] = DATA[begin:end]
        assert blob.path.read_bytes() == wanted


def test_only_ends_that_are_no_whole_sectors_go_through_the_page_cache(
    blobs: tuple[IncomingBlob, ...],
) -> None:
    blob = blobs[0]
    if not set_direct(blob.descriptor, True):
        pytest.skip("this filesystem has no direct writes")
    set_direct(blob.descriptor, False)
    buffer = aligned_buffer(1 << 20)
    assert blob.write_direct(buffer, 0) == 0
    assert blob.write_direct(buffer[100:10_000], 100) == 4096 - 100 + 10_000 - 8192
    assert blob.write_direct(buffer[100:200], 4096 + 100) == 100
    blob.write(buffer[:1], 1)  # it is as before for whoever writes anything anywhere


def test_what_the_disk_refuses_is_raised_and_not_lost(blobs: tuple[IncomingBlob, ...]) -> None:
    broken = IncomingBlob(blobs[0].path, os.open(blobs[0].path, os.O_RDONLY))
    try:
        with (
            pytest.raises(HostError, match=f"{broken.path}: bad file descriptor"),
            BlobStream() as s,
        ):
            s.write(broken, memoryview(b"short"), 0)
        with pytest.raises(HostError, match="bad file descriptor"):
            _write_long(broken)
    finally:
        os.close(broken.descriptor)


def _write_long(blob: IncomingBlob) -> None:
    with BlobStream() as stream:
        for _ in range(20):
            stream.write(blob, memoryview(DATA)[: 1 << 20], 0)
        pytest.fail("nobody said so while it could be stopped")


def _write_and_be_interrupted(blob: IncomingBlob) -> None:
    with BlobStream() as stream:
        stream.write(blob, memoryview(DATA)[:1_500_000], 0)
        raise KeyboardInterrupt


def test_what_came_before_an_error_is_written_for_whoever_goes_on(
    blobs: tuple[IncomingBlob, ...],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write_and_be_interrupted(blobs[0])
    assert blobs[0].path.read_bytes()[:1_500_000] == DATA[:1_500_000]
