"""A build that is refused, killed, or met by a full disk: what is left, and what goes on."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.builds import copy_of, differences, digests, rebuilt, sums_hold
from support.hosts import child_env, in_small_disk
from support.watching import Watching
from support.workplace import Workplace

from packager.connected.build import BuildRequest, build
from packager.connected.cache import Cache
from packager.errors import HostError, PolicyError, UsageError
from packager.progress import Silent

_BUILD = """
import os
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from packager.errors import AirpackError
from support.watching import Watching
from support.workplace import Workplace
from packager.connected.build import build
from packager.connected.cache import Cache
from packager.connected.signing.keys import open_key
recipe, key, cache, output = map(Path, sys.argv[1:])
place = Workplace(recipe, open_key(key, None), Cache(cache))
class Filling(Watching):
    # Has another fill the disk with so many bytes, once all was found to fit.
    def task(self, label, total, **more):
        if label == "packing":
            self.note(label)
            if fill := int(os.environ.get("FILL", 0)):
                (output / "of-another").write_bytes(bytes(fill))
        return super().task(label, total, **more)
watching = Filling()
try:
    build(place.request(output), place.cache, watching)
except AirpackError as error:
    print(f"{error.exit_code} {error.message}")
print(*watching.notes, sep="\\n")
print("left:", *sorted(path.name for path in output.iterdir()))
"""


def command(workplace: Workplace, cache: Path, output: Path) -> list[str]:
    """A build in a process of its own; it prints its error, its notes and what it left."""
    key = workplace.recipe.with_name("team.key")
    return [sys.executable, "-c", _BUILD, *map(str, (workplace.recipe, key, cache, output))]


def start(workplace: Workplace, cache: Path, output: Path) -> subprocess.Popen[str]:
    words = command(workplace, cache, output)
    return subprocess.Popen(words, env=child_env(), stdout=subprocess.PIPE, text=True)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("there", ["directory", "file", "link"])
def test_what_is_there_is_not_built_over(
    workplace: Workplace, built: Path, tmp_path: Path, there: str
) -> None:
    place = tmp_path / "demo-1.0.0"
    if there == "directory":
        place.mkdir()
    elif there == "file":
        place.write_text("precious")
    else:
        place.symlink_to("nowhere")

    with pytest.raises(UsageError, match=f"{place}: exists already"):
        rebuilt(workplace, tmp_path)
    assert list(tmp_path.iterdir()) == [place]


def test_101_place_that_cannot_be_written_to_is_found_out_first(
    workplace: Workplace, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HostError, match=f"{tmp_path / 'file'}: no directory"):
        build(workplace.request(tmp_path / "file" / "out"), Cache(tmp_path / "cache"), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_model_damaged_in_the_cache_is_made_again(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    cache = copy_of(workplace.cache, tmp_path / "cache", "setup", "derived")
    models = [*(cache / "derived").glob("*.gguf")]
    for model in models:
        data = bytearray(model.read_bytes())
        data[-1000] ^= 1
        model.write_bytes(data)
    for golden in (cache / "derived").glob("*.golden.json"):
        golden.write_bytes(golden.read_bytes()[:-5])

    assert models

    assert differences(rebuilt(workplace, tmp_path / "out", cache), built) == []


def test_102_sigkill_at_any_moment_leaves_nothing_that_looks_whole(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    """Each build goes on from where the last one was killed, so the moments differ."""
    cache = copy_of(workplace.cache, tmp_path / "cache", "setup")
    output = tmp_path / "out"
    final, unfinished = output / "demo-1.0.0", output / ".demo-1.0.0.unfinished"
    moments: tuple[Callable[[], bool], ...] = (
        lambda: any((cache / "derived").glob(".tmp-*")),
        lambda: any((cache / "derived").glob("*.gguf")),
        lambda: any((cache / "derived").glob("*.golden.json")),
        unfinished.exists,
        (unfinished / "payload.00001").exists,
    )
    killed = 0
    for moment in moments:
        process = start(workplace, cache, output)
        wait_until(lambda: moment() or process.poll() is not None)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        if process.wait(30) == -signal.SIGKILL:
            killed += 1
            assert not final.exists()
        else:  # it was faster, and then it is whole
            assert differences(final, built) == []
            shutil.rmtree(final)
    assert killed
    (cache / "derived" / ".tmp-1-0.gguf").write_bytes(b"of another that was killed")

    process = start(workplace, cache, output)
    said = process.communicate()[0].splitlines()

    assert said[-1] == "left: demo-1.0.0"
    assert "q4_k_m: quantized before, taken from the cache" in said
    assert differences(final, built) == []
    assert list(cache.rglob(".tmp-*")) == []


def test_leftover_of_a_killed_build_does_not_get_onto_the_medium(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    leftover = tmp_path / ".demo-1.0.0.unfinished"
    leftover.mkdir()
    (leftover / "payload.00009").write_bytes(b"stale")

    assert digests(rebuilt(workplace, tmp_path)).keys() == digests(built).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-1.0.0"]


def test_103_of_two_builds_at_once_one_makes_it_and_the_other_says_it_is_there(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    outcomes: list[object] = []

    def run(request: BuildRequest) -> None:
        try:
            outcomes.append(build(request, workplace.cache, Watching()))
        except UsageError as error:
            outcomes.append(error)

    requests = [workplace.request(tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=run, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        type(built).__name__, "UsageError", "UsageError",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["demo-1.0.0"]
    assert sums_hold(tmp_path / "demo-1.0.0")


@pytest.mark.parametrize("lacking", [20 << 20, 100 << 10])
def test_99_disk_that_is_too_small_is_seen_before_anything_is_written(
    workplace: Workplace, built: Path, tmp_path: Path, lacking: int
) -> None:
    size = sum(path.stat().st_size for path in built.iterdir()) - lacking
    disk = tmp_path / "disk"
    disk.mkdir()

    script = shlex.join(command(workplace, workplace.cache.root, disk))
    done = in_small_disk(disk, str(size), f"exec {script}")

    lines = done.stdout.splitlines()
    assert re.match(rf"13 {disk}: .* needed, .* free$", lines[0]), done.stdout + done.stderr
    assert "packing" not in lines
    assert lines[-1] == "left:"
    assert list(disk.iterdir()) == []


def test_99_disk_that_others_fill_meanwhile_is_no_place_for_what_looks_like_a_bundle(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    room = sum(path.stat().st_size for path in built.iterdir()) + (4 << 20)
    disk = tmp_path / "disk"
    disk.mkdir()

    words = command(workplace, workplace.cache.root, disk)
    done = in_small_disk(disk, str(room), f"FILL={8 << 20} exec {shlex.join(words)}")

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"13 {disk}/"), done.stdout + done.stderr
    assert lines[0].endswith("no space left")
    assert "packing" in lines
    assert lines[-1] == "left: .demo-1.0.0.unfinished of-another"


def test_18_a_release_that_has_expired_already_is_not_built(
    workplace: Workplace, tmp_path: Path
) -> None:
    request = workplace.request(tmp_path / "out")
    late = replace(request, recipe=replace(request.recipe, expires="2020-01-01"))
    with pytest.raises(PolicyError, match="2020-01-01 is over"):
        build(late, workplace.cache, Silent())
    assert not (tmp_path / "out").exists()
