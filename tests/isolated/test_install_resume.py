"""Installs that go on where an earlier one was interrupted, and read only what is missing."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE, EngineVariant, flip_bit, make_bundle, make_key
from support.hosts import (
    NOW,
    Host,
    child_env,
    in_small_disk,
    install_command,
    run_install,
    strace,
)
from support.tracing import Trace
from support.watching import WatchedTask, Watching

from packager.connected.keys import SigningKey
from packager.errors import IntegrityError, MissingVolumeError, TrustError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.isolated.lifecycle import free_space, uninstall
from packager.store.blobs import collect_garbage
from packager.store.generations import find_generation

CHANCE = random.Random(5)
FILES = {
    "a.safetensors": CHANCE.randbytes(30 * CHUNK_SIZE + 999),
    "b.safetensors": CHANCE.randbytes(20 * CHUNK_SIZE + 5),
    "config.json": b'{"layers": 2}\n',
    "empty": b"",
}
VOLUME_SIZE = 12 * CHUNK_SIZE  # the second lies within the first file
MODEL = Digest.of(FILES["a.safetensors"])
SIZE = sum(map(len, FILES.values()))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """Two files of many chunks and two small ones, over five volumes; nobody changes it."""
    place = tmp_path_factory.mktemp("stick")
    return make_bundle(place, [key], sequence=2, files=FILES, volume_size=VOLUME_SIZE)


@pytest.fixture(autouse=True)
def _two_cores() -> Iterator[None]:
    """As many workers everywhere: how far an install has come at a call depends on it."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:2])
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def running(tmp_path: Path, host: Host, key: SigningKey) -> Host:
    """A host with generation 1 of the model."""
    host.install(make_bundle(tmp_path / "first", [key], version="0.9.0"))
    return host


def index_of(bundle: Path) -> Bundle:
    return parse_bundle((bundle / "bundle.json").read_bytes())


def check_installed(host: Host, number: int = 2, files: dict[str, bytes] = FILES) -> None:
    """Generation ``number`` is current, whole, and nothing else is here."""
    generation = find_generation(host.home, "tiny")
    assert generation.number == number
    directory = generation.path / "original"
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    assert not host.home.partials.exists()
    assert collect_garbage(host.home) == 0
    assert all(stat.st_mode & 0o777 == 0o444 for stat in map(Path.stat, directory.iterdir()))


def kill_install(host: Host, bundle: Path, call: str, when: int) -> None:
    front = strace("-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={when}")
    assert run_install(host.home, bundle, before=front).returncode != 0


def begin(host: Host, bundle: Path, when: int = 20) -> None:
    """Begin an install, and kill it with its ``when``-th write."""
    kill_install(host, bundle, "pwrite64", when)
    assert host.partials()


def missing_bytes(host: Host, bundle: Path) -> bytes:
    """For each byte of the payload 1 where an install must read it, else 0: seen from outside.

    It must where the byte is in a chunk of a file that is not in the store; but not if the chunk
    lies within one file, and the part of that file which is here has all its bytes.
    """
    index, partials = index_of(bundle), host.partials()
    payload = b"".join(path.read_bytes() for path in sorted(bundle.glob("payload.*")))
    wanted = bytearray(len(payload))
    for begin in range(0, len(payload), CHUNK_SIZE):
        chunk = payload[begin : begin + CHUNK_SIZE]
        end = begin + len(chunk)
        files = [f for f in index.files_touching(begin, end) if f.size]
        files = [f for f in files if not host.home.blob(f.digest).exists()]
        if not files:
            continue
        file = files[0]
        part = partials.get(file.digest.hex, b"")[max(0, begin - file.offset) :][: len(chunk)]
        if not (file.offset <= begin and end <= file.end and part == chunk):
            wanted[begin:end] = b"\1" * len(chunk)
    return bytes(wanted)


def install_traced(host: Host, bundle: Path, place: Path) -> tuple[Trace, int]:
    """Install, and check that each missing byte was read exactly once, and no other.

    Returns the record, and how many bytes of the medium were read.
    """
    missing = missing_bytes(host, bundle)
    trace = Trace(place / "calls")
    done = run_install(host.home, bundle, before=trace.front)
    assert done.returncode == 0, done.stderr
    assert b"".join(map(trace.times_read, sorted(bundle.glob("payload.*")))) == missing
    return trace, sum(missing)


@dataclass
class Meddling(Watching):
    """Does something when the task of that label has done so much."""

    label: str = "installing"
    at: int = 10 * CHUNK_SIZE
    act: Callable[[], object] = field(default=lambda: None)

    @contextmanager
    def task(
        self, label: str, total: int, *, unit: str = "B", done: int = 0
    ) -> Iterator[WatchedTask]:
        with super().task(label, total, unit=unit, done=done) as task:
            yield _Trap(label, total, done, self) if label == self.label else task


@dataclass
class _Trap(WatchedTask):
    owner: Meddling

    def advance(self, amount: int) -> None:
        super().advance(amount)
        if self.done >= self.owner.at:
            self.owner.act()


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_install(host: Host, bundle: Path, at: int = 10 * CHUNK_SIZE) -> Watching:
    watching = Meddling(at=at, act=interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.install(bundle, progress=watching)
    return watching


def test_a_fresh_install_reads_each_byte_once_and_writes_it_once(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    trace, read = install_traced(running, bundle, tmp_path)
    check_installed(running)
    assert read >= SIZE
    # No byte is copied within the disk: at no time is more than this in use.
    assert SIZE <= trace.bytes_written(running.home.root) <= SIZE * 1.01
    assert trace.bytes_read(running.home.partials) == SIZE  # once, as whole files


@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("pwrite64", 5), ("pwrite64", 12), ("pwrite64", 24),  # counted in each thread
        ("fsync", 9), ("fchmod", 1), ("rename", 1), ("rename", 2),
    ],
)  # fmt: skip
def test_102_what_a_killed_install_has_written_is_not_read_from_the_medium_again(
    tmp_path: Path, running: Host, bundle: Path, call: str, when: int
) -> None:
    kill_install(running, bundle, call, when)
    assert running.current() == 1
    trace, read = install_traced(running, bundle, tmp_path)
    check_installed(running)
    assert trace.bytes_written(running.home.root) <= read + SIZE // 100
    assert read < SIZE
    if call != "pwrite64":
        assert read <= 5 * CHUNK_SIZE  # the files' edges


def test_it_is_said_how_much_is_here_and_what_is_left_when_it_is_interrupted(
    running: Host, bundle: Path
) -> None:
    before = running.state()
    watching = interrupt_install(running, bundle, at=SIZE // 2)
    (note,) = watching.notes
    assert re.match(
        r"the next install goes on from the [\d.]+ MiB that are here; airpack gc frees them$", note
    )
    assert running.state() == before
    again = Watching()
    running.install(bundle, progress=again)
    assert re.match(r"continuing: [\d.]+ MiB of 3\.\d\d MiB are here already$", again.notes[0])
    labels = [task.label for task in again.tasks]
    assert labels == ["checking what is here already", "installing", "checking whole files"]
    assert all(task.done == task.total for task in again.tasks)
    check_installed(running)


def test_60_a_stick_that_was_pulled_out_and_put_back_is_gone_on_with(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    before = running.state()
    later = sorted(bundle.glob("payload.*"))[1:]
    paths = [argument for path in later for argument in ("-P", str(path))]
    front = strace("-o", os.devnull, *paths, "-e", "inject=preadv,preadv2,pread64:error=EIO")
    done = run_install(running.home, bundle, before=front)
    assert re.match(rf"IntegrityError: {later[0]}: chunk 12 \(.*\) cannot be read", done.stderr)
    assert running.state() == before
    trace, _ = install_traced(running, bundle, tmp_path)
    assert not any(trace.times_read(bundle / "payload.00001")[CHUNK_SIZE:])
    check_installed(running)


def test_53_what_was_good_on_a_damaged_stick_need_not_be_read_from_the_next(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    flip_bit(damaged / "payload.00002", 5 * CHUNK_SIZE)
    with pytest.raises(IntegrityError, match=r"chunk 17 .* is damaged") as caught:
        running.install(damaged)
    assert "airpack gc frees them" in str(caught.value.hint)
    _, read = install_traced(running, bundle, tmp_path)
    assert read <= 5 * CHUNK_SIZE  # it, and the files' edges
    check_installed(running)


FULL = """
import sys
from pathlib import Path
from support.hosts import Host
from support.watching import Watching
from packager.errors import AirpackError
from packager.isolated.lifecycle import free_space
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
from support.hosts import NOW
home, bundle, fill = Home(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[1]).parent / "fill"
host = Host(home, read_keyring(home))
class Filling(Watching):
    def task(self, label, total, **options):
        if label == "installing":
            with open(fill, "wb", buffering=0) as stream:
                try:
                    while stream.write(bytes(4096)): pass
                except OSError: pass
                stream.truncate(stream.tell() - 2_000_000)
        return super().task(label, total, **options)
before = host.state()
def full():
    try:
        host.install(bundle, progress=Filling())
    except AirpackError as error:
        print(type(error).__name__, error.message, "--", error.hint)
    print(host.state() == before, host.current())
full()
print("freed", free_space(home, now=NOW, operator="tester") > 1_900_000, *host.partials())
fill.unlink()
full()
fill.unlink()
watching = Watching()
host.install(bundle, progress=watching)
print(watching.notes[0], host.current())
"""


def test_99_a_full_disk_keeps_what_fits_gives_it_back_if_asked_and_else_goes_on_there(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    script = (
        f'cp -a "{running.home.root}" "$PLACE/home" && {sys.executable} -c \'{FULL}\' '
        f'"$PLACE/home" "{bundle}"'
    )
    done = in_small_disk(place, "16m", script)
    assert done.stderr == ""
    first, same, freed, second, again, last = done.stdout.splitlines()
    for line in (first, second):
        assert re.match(
            rf"NoSpaceError {place}/home/partial/tiny/\w+: no space left -- free some space, then "
            r"run it again; the next install goes on from the [\d.]+ MiB that are here; airpack gc "
            "frees them$",
            line,
        )
    assert (same, again) == ("True 1", "True 1")
    assert freed == "freed True"
    assert re.match(r"continuing: [\d.]+ MiB of 3\.\d+ MiB are here already 2$", last)


ROOM = """
import sys
from pathlib import Path
from support.hosts import Host
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
home = Home(Path(sys.argv[1]))
with open(home.root.parent / "fill", "wb") as stream:
    stream.write(bytes(int(sys.argv[3])))
print(Host(home, read_keyring(home)).install(Path(sys.argv[2])).path.name)
"""


def test_the_room_that_is_needed_is_less_what_is_here_already(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle, at=SIZE * 9 // 10)
    place = tmp_path / "disk"
    place.mkdir()
    free = (9 << 20) + SIZE // 4  # with the margin too little for all files, enough for the rest
    used = sum(path.stat().st_blocks * 512 for path in running.home.root.rglob("*"))
    script = (
        f'cp -a --sparse=always "{running.home.root}" "$PLACE/home" && '
        f'{sys.executable} -c \'{ROOM}\' "$PLACE/home" "{bundle}" {(24 << 20) - used - free}'
    )
    done = in_small_disk(place, "24m", script)
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize("spoil", ["zeros", "noise", "short", "long", "swapped", "empty"])
def test_what_a_power_cut_left_is_read_and_not_believed(
    tmp_path: Path, running: Host, bundle: Path, spoil: str
) -> None:
    begin(running, bundle, 24)
    path = running.home.partial("tiny", MODEL)
    data = path.read_bytes()
    middle = slice(7 * CHUNK_SIZE + 100, 9 * CHUNK_SIZE)
    spoilt = {
        "zeros": data[: middle.start] + bytes(middle.stop - middle.start) + data[middle.stop :],
        "noise": data[: middle.start] + os.urandom(5) + data[middle.start + 5 :],
        "short": data[: middle.start],
        "long": data + b"more",
        "swapped": data[CHUNK_SIZE:] + data[:CHUNK_SIZE],
        "empty": b"",
    }
    path.write_bytes(spoilt[spoil])
    install_traced(running, bundle, tmp_path)
    check_installed(running)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_lies_there_the_installed_files_are_right(
    host: Host, bundle: Path, data: st.DataObject
) -> None:
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        content = bytearray(FILES[name])
        cuts = st.tuples(st.integers(0, len(content)), st.integers(0, 5 * CHUNK_SIZE))
        for start, size in data.draw(st.lists(cuts, max_size=4), label=name):
            content[start : start + size] = bytes(len(content[start : start + size]))
        path = host.home.partial("tiny", Digest.of(FILES[name]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    host.install(bundle)
    check_installed(host, host.current())
    uninstall(host.home, "tiny", None, now=NOW, operator="tester")
    free_space(host.home, now=NOW, operator="tester")


def test_a_hole_is_not_read(running: Host, bundle: Path) -> None:
    interrupt_install(running, bundle)
    watching = Watching()
    running.install(bundle, progress=watching)
    task = next(t for t in watching.tasks if t.label == "checking what is here already")
    assert 8 * CHUNK_SIZE <= task.total <= 40 * CHUNK_SIZE  # of 50; two workers read 16 at once


def test_another_bundle_with_the_same_file_goes_on_with_it(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    interrupt_install(running, bundle, at=SIZE // 2)
    other = make_bundle(
        tmp_path / "b", [key], name="other",
        files={"0": b"before it", "w.safetensors": FILES["a.safetensors"]},
    )  # fmt: skip
    watching = Watching()
    path = running.install(other, progress=watching).path
    assert watching.notes[0].startswith("continuing: ")
    assert (path / "original" / "w.safetensors").read_bytes() == FILES["a.safetensors"]
    running.install(bundle)
    check_installed(running)


def test_a_volume_that_was_taken_in_need_not_be_there_again(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle, at=44 * CHUNK_SIZE)
    stick = Path(shutil.copytree(bundle, tmp_path / "stick"))
    (stick / "payload.00002").unlink()
    watching = Watching()
    running.install(stick, progress=watching)
    assert watching.notes[1] == "payload.00002: missing; this install does without"
    check_installed(running)


def test_what_a_release_left_that_was_never_finished_goes_with_the_next_one(
    tmp_path: Path, running: Host, bundle: Path, key: SigningKey
) -> None:
    other = make_bundle(tmp_path / "o", [key], name="other", files={"w": FILES["b.safetensors"]})
    interrupt_install(running, bundle)
    interrupt_install(running, other, at=CHUNK_SIZE)
    partials = running.partials()
    assert len(partials) > 1
    later = make_bundle(tmp_path / "l", [key], version="3", sequence=3, files={"a": b"small"})
    assert running.install(later).path.name == "2"
    assert [path.name for path in running.home.partials.iterdir()] == ["other"]
    running.install(other)
    assert not running.home.partials.exists()


def test_gc_and_the_models_removal_free_what_is_left(running: Host, bundle: Path) -> None:
    interrupt_install(running, bundle)
    assert free_space(running.home, now=NOW, operator="tester") >= 8 * CHUNK_SIZE
    assert running.partials() == {}
    interrupt_install(running, bundle)
    uninstall(running.home, "tiny", None, now=NOW, operator="tester")
    assert not running.home.partials.exists()


def test_04_48_what_is_refused_before_a_byte_of_the_payload_is_read_leaves_nothing(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    stranger = make_bundle(tmp_path / "s", [make_key(tmp_path / "k")], sequence=2, files=FILES)
    with pytest.raises(TrustError):
        running.install(stranger)
    stick = Path(shutil.copytree(bundle, tmp_path / "stick"))
    (stick / "payload.00002").unlink()
    with pytest.raises(MissingVolumeError):
        running.install(stick)
    assert not running.home.partials.exists()


def test_what_is_here_survives_a_refusal_that_reads_nothing(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle)
    partials = running.partials()
    stick = Path(shutil.copytree(bundle, tmp_path / "stick"))
    (stick / "payload.00005").unlink()
    with pytest.raises(MissingVolumeError):
        running.install(stick)
    assert running.partials() == partials
    running.install(bundle)
    check_installed(running)


def test_an_install_interrupted_while_the_model_answers_reads_only_the_edges_again(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[demo_variant])
    before = running.state()

    class Impatient(Watching):
        def task(self, label: str, total: int, **options: object) -> object:  # type: ignore[override]
            if label.startswith("smoke"):
                raise KeyboardInterrupt
            return super().task(label, total, **options)  # type: ignore[arg-type]

    impatient = Impatient()
    with pytest.raises(KeyboardInterrupt):
        running.install(bundle, smoke=True, progress=impatient)
    assert "goes on from" in impatient.notes[-1]
    assert running.state() == before
    _, read = install_traced(running, bundle, tmp_path)
    assert read <= 3 * CHUNK_SIZE
    assert running.current() == 2


def test_103_of_several_installs_at_once_that_could_go_on_one_does(
    running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle)
    processes = [
        subprocess.Popen(
            install_command(running.home, bundle),
            env=child_env(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    faults = [process.communicate(timeout=120)[1] for process in processes]
    assert all("another airpack, process" in fault for fault in faults if fault)
    check_installed(running, 1 + faults.count(""))


@pytest.mark.sweep
@pytest.mark.parametrize("call", ["pwrite64", "ftruncate", "fchmod", "chmod", "rename", "fsync",
                                  "unlink", "unlinkat", "rmdir", "mkdir", "link"])  # fmt: skip
def test_102_the_install_that_goes_on_may_be_killed_at_every_call_that_changes_a_file(
    tmp_path: Path, running: Host, bundle: Path, call: str
) -> None:
    begin(running, bundle)
    for when in range(1, 400):
        place = tmp_path / f"home {when}"
        subprocess.run(["cp", "-a", running.home.root, place], check=True)
        host = Host(type(running.home)(place), running.keyring)
        front = strace("-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={when}")
        killed = run_install(host.home, bundle, before=front).returncode != 0
        host.install(bundle)
        check_installed(host, host.current())
        shutil.rmtree(place)
        if not killed:
            return
    pytest.fail(f"the install never came to its end without {call}")
