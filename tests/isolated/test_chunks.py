from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, flip_bit, make_bundle
from support.hosts import NOW, Host
from support.tiny_source import weights
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import HostError
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import open_media
from packager.isolated.verify import authenticate

SIZE = 24 << 20
CHUNKS_OF_A_RUN = 16


class Reading:
    """Reads a large bundle with a handler, and counts the chunks that were handed out."""

    def __init__(self, host: Host, bundle: Path) -> None:
        self.media = open_media([bundle])
        self.verified = authenticate(self.media, host.keyring, now=NOW)
        self.total = len(self.verified.bundle.payload.chunks)
        self.good: list[int] = []
        self.bad: list[int] = []
        self.watching = Watching()

    def run(
        self, handle: Callable[[int], None], workers: int = 4, *, in_order: bool = False
    ) -> None:
        def good(chunk: int, data: memoryview) -> None:
            self.good.append(chunk)
            handle(chunk)

        with self.watching.task("reading", SIZE) as task:
            read_chunks(
                self.verified,
                volume_places(self.verified.bundle, self.media),
                range(self.total),
                good=good,
                bad=self.bad.append,
                task=task,
                in_order=in_order,
                workers=workers,
            )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    files = {"model.safetensors": weights(bytes(SIZE))}
    return make_bundle(tmp_path_factory.mktemp("large"), [key], files=files, volume_size=4 << 20)


def test_every_chunk_is_handed_out_once(host: Host, large: Path) -> None:
    reading = Reading(host, large)
    reading.run(lambda _chunk: None)
    assert sorted(reading.good) == list(range(reading.total))
    assert reading.bad == []
    assert reading.watching.tasks[0].done == reading.verified.bundle.payload.size


def test_in_order_each_comes_alone_behind_all_lower_ones_and_bad_ones_hold_nobody_up(
    host: Host, large: Path, tmp_path: Path
) -> None:
    stick = Path(shutil.copytree(large, tmp_path / "stick"))
    flip_bit(stick / "payload.00002", 5 * CHUNK_SIZE)
    reading = Reading(host, stick)
    alone = threading.Lock()

    def handle(chunk: int) -> None:
        assert alone.acquire(blocking=False)
        time.sleep(0.003 if chunk % CHUNKS_OF_A_RUN == 0 else 0)
        alone.release()

    reading.run(handle, in_order=True)
    assert len(reading.bad) == 1
    assert reading.good == [c for c in range(reading.total) if c not in reading.bad]


def test_an_error_in_order_ends_those_who_wait_for_their_turn(host: Host, large: Path) -> None:
    reading = Reading(host, large)

    def fail(chunk: int) -> None:
        time.sleep(0.05)  # the others have checked their runs by then, and wait
        if chunk == 1:
            raise HostError("no")

    before = threading.active_count()
    with pytest.raises(HostError, match="no"):
        reading.run(fail, in_order=True)
    assert reading.good == [0, 1]
    assert threading.active_count() == before


def test_an_error_in_one_worker_ends_the_others_within_their_run(host: Host, large: Path) -> None:
    reading = Reading(host, large)

    def fail(chunk: int) -> None:
        if chunk == CHUNKS_OF_A_RUN:  # not the first worker, which is waited for first
            raise HostError("no")
        time.sleep(0.002)

    before = threading.active_count()
    with pytest.raises(HostError, match="no"):
        reading.run(fail)
    assert len(reading.good) <= 4 * CHUNKS_OF_A_RUN
    assert threading.active_count() == before


def test_a_progress_that_fails_ends_the_work_too(host: Host, large: Path) -> None:
    reading = Reading(host, large)

    class Broken:
        def advance(self, _amount: int) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        read_chunks(
            reading.verified,
            volume_places(reading.verified.bundle, reading.media),
            range(reading.total),
            good=lambda chunk, _data: reading.good.append(chunk),
            bad=reading.bad.append,
            task=Broken(),
            workers=2,
        )
    assert len(reading.good) <= 3 * CHUNKS_OF_A_RUN


def test_an_interrupt_ends_the_work_within_a_run(host: Host, large: Path) -> None:
    reading = Reading(host, large)

    def interrupt(chunk: int) -> None:
        if chunk == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.005)

    with pytest.raises(KeyboardInterrupt):
        reading.run(interrupt, workers=2)
    assert len(reading.good) < reading.total // 2


def test_59_chunks_behind_an_end_are_bad_and_those_before_it_are_read(
    host: Host, large: Path
) -> None:
    reading = Reading(host, large)
    path = large / "payload.00002"
    data = path.read_bytes()
    os.truncate(path, 10 * CHUNK_SIZE + 1)
    try:
        reading.run(lambda _chunk: None)
    finally:
        path.write_bytes(data)
    first = len(data) // CHUNK_SIZE
    assert sorted(reading.bad) == list(range(first + 10, 2 * first))
    assert len(reading.good) + len(reading.bad) == reading.total
