"""The whole near half: what lies on the medium, and what is left where a build ends early."""

from __future__ import annotations

import hashlib
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
from support.bundles import make_key
from support.hosts import child_env, in_small_disk
from support.watching import Watching
from support.workplace import NOW, PYTHON, Workplace

from packager.connected.build import BuildRequest, build
from packager.connected.cache import Cache
from packager.errors import HostError, PolicyError, UsageError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.lock import parse_lock
from packager.format.sums import parse_sums
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
from packager.connected.keys import open_key
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


def differences(made: Path, wanted: Path) -> list[str]:
    """What differs between two bundles but their signatures: payload files, and files beside."""
    files, others = ({f.path: f.digest for f in index_of(b).files} for b in (made, wanted))
    inside = [path for path in {**files, **others} if files.get(path) != others.get(path)]
    beside, theirs = digests(made), digests(wanted)
    return inside + [
        name
        for name in {**beside, **theirs}
        if not name.endswith((".sig", ".dsse.json")) and beside.get(name) != theirs.get(name)
    ]


def index_of(bundle: Path) -> Bundle:
    return parse_bundle((bundle / "bundle.json").read_bytes())


def sums_hold(bundle: Path) -> bool:
    check = ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"]
    return subprocess.run(check, cwd=bundle, capture_output=True).returncode == 0


def digests(bundle: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.iterdir()}


def rebuilt(workplace: Workplace, output: Path, cache: Path | None = None) -> Path:
    return build(workplace.request(output), Cache(cache or workplace.cache.root), Silent())


def copy_of(cache: Cache, place: Path, *parts: str) -> Path:
    """A cache that holds only ``parts`` of another, as files of its own."""
    for part in parts:
        shutil.copytree(cache.root / part, place / part)
    return place


def test_the_medium_holds_what_it_must(workplace: Workplace, built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())

    assert {
        "READ-ME-FIRST.txt",
        "SHA256SUMS",
        f"SHA256SUMS.{workplace.key.public.key_id}.sig",
        "bundle.json",
        "lock.json",
        "payload.00001",
        "setup.sh",
        "libgomp.so.1",
        "sbom.cdx.json",
        "provenance.json",
        f"provenance.{workplace.key.public.key_id}.dsse.json",
        "FORMAT.md",
        "LICENSE.engine.txt",
        "LICENSE.libgomp.txt",
        "spare.READ-ME-FIRST.txt",
        "spare.SHA256SUMS",
        f"spare.SHA256SUMS.{workplace.key.public.key_id}.sig",
        "spare.bundle.json",
        "spare.lock.json",
        "spare.setup.sh",
        "spare.sbom.cdx.json",
        "spare.provenance.json",
        f"spare.provenance.{workplace.key.public.key_id}.dsse.json",
        f"q4_k_m.{workplace.key.public.key_id}.model.sig",
        f"original.{workplace.key.public.key_id}.model.sig",
        f"spare.q4_k_m.{workplace.key.public.key_id}.model.sig",
        f"spare.original.{workplace.key.public.key_id}.model.sig",
        f"requirements-{PYTHON}.txt",
    } == {name for name in names if not name.endswith(".whl")}
    assert built.name == "demo-1.0.0"
    assert all(path.is_file() and not path.is_symlink() for path in built.iterdir())
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in names)
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_sums_list_every_file_but_themselves_and_signatures(built: Path) -> None:
    listed = parse_sums((built / "SHA256SUMS").read_bytes())

    signatures = ("SHA256SUMS", ".model.sig", ".dsse.json")
    unsigned = {name for name in digests(built) if not any(part in name for part in signatures)}
    assert listed.keys() == unsigned
    assert sums_hold(built)


def test_payload_holds_the_variants_and_all_that_sets_airpack_up(built: Path) -> None:
    index = index_of(built)
    sums = parse_sums((built / "SHA256SUMS").read_bytes())

    setup = {f.path.removeprefix("setup/"): f for f in index.files if f.path.startswith("setup/")}
    beside = {"READ-ME-FIRST.txt", "bundle.json", "lock.json", "payload.00001"}
    beside |= {"sbom.cdx.json", "provenance.json"}
    assert setup.keys() == {name for name in sums.keys() - beside if "spare." not in name}
    assert all(file.digest == sums[name] for name, file in setup.items())

    quantized, original = index.variants
    assert [f.path.rpartition("/")[2] for f in index.variant_files(quantized)] == [
        "demo-q4_k_m.gguf", "LICENSE", "README.md",
    ]  # fmt: skip
    assert quantized.golden is not None
    assert original.golden is None
    carried = {f.path.rpartition("/")[2]: f.digest.hex for f in index.variant_files(original)}
    lock = parse_lock((built / "lock.json").read_bytes(), where="lock.json")
    assert carried == {file.path: file.content.hex for file in lock.files}


def test_stock_tar_unpacks_the_files_that_the_index_lists(built: Path, tmp_path: Path) -> None:
    subprocess.run(f"cat '{built}'/payload.* | tar -x -f - -C '{tmp_path}'", shell=True, check=True)

    found = {
        path.relative_to(tmp_path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == {file.path: file.digest.hex for file in index_of(built).files}


def test_every_command_of_the_read_me_works_as_it_stands(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    text = (built / "READ-ME-FIRST.txt").read_bytes().decode("ascii")
    key_id = workplace.key.public.key_id
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]

    openssl = f"openssl dgst -sha256 -verify KEY.pub -signature SHA256SUMS.{key_id}.sig SHA256SUMS"
    assert {openssl, "sha256sum -c SHA256SUMS", "cat payload.* | tar -x -f -"} <= set(commands)
    assert "~/airpack/bin/airpack run demo 'In the beginning'" in commands
    assert workplace.key.public.spoken_fingerprint.splitlines()[0] in text
    public = shlex.quote(str(workplace.recipe.with_name("team.key.pub")))
    done = subprocess.run(
        openssl.replace("KEY.pub", public), cwd=built, shell=True, capture_output=True, check=True
    )
    assert done.stdout == b"Verified OK\n"


def test_nothing_on_the_medium_names_the_place_it_was_built_at(
    workplace: Workplace, built: Path
) -> None:
    places = [str(workplace.recipe.parent), str(Path.cwd())]
    for path in built.iterdir():
        if path.suffix in (".txt", ".json", ".sh"):
            text = path.read_text("utf-8")
            assert not any(place in text for place in places), path


def test_a_second_build_is_the_same_to_the_byte(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    """From a cache of wheels alone: the model is quantized and measured again."""
    cache = copy_of(workplace.cache, tmp_path / "cache", "setup")

    assert differences(rebuilt(workplace, tmp_path / "out", cache), built) == []


def test_payload_does_not_depend_on_the_key_nor_on_volumes_or_time(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other.key")
    request = workplace.request(tmp_path / "out", volume_size=20 << 20)
    request = replace(request, keys=(other,), now=NOW.replace(year=2030))

    made = build(request, workplace.cache, Silent())

    volumes = sorted(made.glob("payload.*"))
    assert [volume.stat().st_size for volume in volumes[:-1]] == [20 << 20] * (len(volumes) - 1)
    assert b"".join(v.read_bytes() for v in volumes) == (built / "payload.00001").read_bytes()
    assert index_of(made).created == "2030-11-24T12:00:00Z"
    assert replace(index_of(made), created="", volumes=()) == replace(
        index_of(built), created="", volumes=()
    )


def test_unsigned_bundle_says_so(workplace: Workplace, built: Path, tmp_path: Path) -> None:
    made = build(replace(workplace.request(tmp_path), keys=()), workplace.cache, Silent())

    text = (made / "READ-ME-FIRST.txt").read_text("ascii")
    assert "not signed at the build" in text
    assert "-signature SHA256SUMS.KEY-ID.sig SHA256SUMS" in text
    assert list(made.glob("*.sig")) == []


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
    (model,) = (cache / "derived").glob("*.gguf")
    data = bytearray(model.read_bytes())
    data[-1000] ^= 1
    model.write_bytes(data)
    (golden,) = (cache / "derived").glob("*.golden.json")
    golden.write_bytes(golden.read_bytes()[:-5])

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


def test_the_bytes_that_all_of_it_takes_are_said_before_it_is_written(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    watching = Watching()
    request = replace(workplace.request(tmp_path, volume_size=8 << 20), parity=2)
    made = build(request, workplace.cache, watching)

    [said] = [note for note in watching.notes if note.startswith("the bundle takes ")]
    size = sum(path.stat().st_size for path in made.iterdir())
    stated = int(re.search(r"\((\d+) bytes\)", said)[1])  # type: ignore[index]
    assert 0 <= stated - size <= 4  # a signature's DER is 70 to 72 bytes, and there are two
    count = len(index_of(made).volumes)
    assert f": {count} volumes of up to 8 MiB, 2 of parity, and " in said


def test_18_a_release_that_has_expired_already_is_not_built(
    workplace: Workplace, tmp_path: Path
) -> None:
    request = workplace.request(tmp_path / "out")
    late = replace(request, recipe=replace(request.recipe, expires="2020-01-01"))
    with pytest.raises(PolicyError, match="2020-01-01 is over"):
        build(late, workplace.cache, Silent())
    assert not (tmp_path / "out").exists()
