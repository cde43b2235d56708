"""Builds that go on where an earlier one was interrupted, and write only what is missing."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import flip_bit
from support.hosts import child_env, in_small_disk, make_host, strace
from support.tracing import Trace
from support.watching import Watching
from support.workplace import Workplace

from packager.connected.build import BuildRequest, build
from packager.connected.packing.layout import Member, PayloadPlan, plan_payload
from packager.connected.packing.pack import PackedPayload, write_payload
from packager.errors import IntegrityError
from packager.format.digest import Digest
from packager.progress import Silent

KIB64 = 1 << 16
MIB = 1 << 20
VOLUME_SIZE = 20 * MIB
CHANCE = random.Random(7)


def plan_of(folder: Path, *contents: bytes, volume_size: int | None = None) -> PayloadPlan:
    members = []
    for number, data in enumerate(contents):
        path = folder / f"member{number}"
        path.write_bytes(data)
        members.append(Member(f"m/{number}", path, len(data), Digest.of(data)))
    return plan_payload(members, volume_size)


def pack(plan: PayloadPlan, place: Path) -> tuple[PackedPayload, dict[str, bytes]]:
    written = write_payload(plan, place, Silent())
    return written, {path.name: path.read_bytes() for path in sorted(place.iterdir())}


_FILES = (CHANCE.randbytes(5 * KIB64 + 7), b"", CHANCE.randbytes(4 * KIB64), bytes(3 * KIB64))
_FEW_CHUNKS = 3 * KIB64


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


Mishap = Callable[[bytes, int], bytes]
MISHAPS: dict[str, Mishap] = {
    "is cut": lambda data, at: data[:at],
    "is zeros from there": lambda data, at: data[:at].ljust(len(data), b"\0"),
    "is zeros to there": lambda data, at: bytes(at) + data[at:],
    "has a flipped bit": _flipped,
    "is another's": lambda data, at: random.Random(at).randbytes(len(data)),
    "is too long": lambda data, at: data + data[:at],
}


@settings(max_examples=60, deadline=None)
@given(mishaps=st.lists(st.tuples(st.sampled_from(sorted(MISHAPS)), st.floats(0, 0.9999))))
def test_whatever_an_earlier_build_left_the_volumes_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, mishaps: list[tuple[str, float]]
) -> None:
    folder, clean, place = (tmp_path_factory.mktemp(name) for name in ("files", "clean", "place"))
    plan = plan_of(folder, *_FILES, volume_size=_FEW_CHUNKS)
    fresh = pack(plan, clean)
    for volume, (mishap, share) in zip(plan.volumes, mishaps, strict=False):
        data = fresh[1][volume.name]
        (place / volume.name).write_bytes(MISHAPS[mishap](data, int(len(data) * share)))

    assert pack(plan, place) == fresh


_PACK = """
import sys
from pathlib import Path
from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.progress import Silent
from packager.store.digests import file_digest
source, place = map(Path, sys.argv[1:])
member = Member("m/0", source, source.stat().st_size, file_digest(source))
write_payload(plan_payload([member], None), place, Silent())
"""


def pack_traced(source: Path, place: Path, record: Path) -> int:
    """Pack ``source`` in a process of its own; returns how many bytes it wrote."""
    trace = Trace(record)
    command = [*trace.front, sys.executable, "-c", _PACK, str(source), str(place)]
    subprocess.run(command, env=child_env(), check=True, timeout=120)
    return trace.bytes_written(place)


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (lambda data: data, 10 * MIB + 2560),  # a header, the member, two blocks of the end
        (lambda data: data[: 7 * MIB + 5], 7 * MIB),
        (lambda data: data[: 7 * MIB + 5].ljust(len(data), b"\0"), 7 * MIB),
        (lambda data: data[: KIB64 - 1], 0),
    ],
    ids=["all", "a part", "a part and zeros", "less than a chunk"],
)
def test_what_is_good_is_not_written_again_up_to_the_chunk(
    tmp_path: Path, left: Callable[[bytes], bytes], kept: int
) -> None:
    plan = plan_of(tmp_path, CHANCE.randbytes(10 * MIB + 1024))
    (clean := tmp_path / "clean").mkdir()
    (place := tmp_path / "place").mkdir()
    fresh = pack(plan, clean)[1]["payload.00001"]
    assert plan.chunk_size == KIB64
    (place / "payload.00001").write_bytes(left(fresh))

    written = pack_traced(tmp_path / "member0", place, tmp_path / "trace")

    assert (place / "payload.00001").read_bytes() == fresh
    assert written == len(fresh) - kept


def test_a_flipped_bit_is_found_and_all_from_its_chunk_on_written_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CHANCE.randbytes(10 * MIB))
    (place := tmp_path / "place").mkdir()
    fresh = pack(plan, place)[1]["payload.00001"]
    flip_bit(place / "payload.00001", 6 * MIB + 100)

    written = pack_traced(tmp_path / "member0", place, tmp_path / "trace")

    assert (place / "payload.00001").read_bytes() == fresh
    assert written == len(fresh) - 6 * MIB


def test_a_member_that_changed_meanwhile_is_found_in_what_was_written_before(
    tmp_path: Path,
) -> None:
    """The bytes on the disk are the right ones; the file they would come from is not."""
    plan = plan_of(tmp_path, CHANCE.randbytes(10 * MIB), b"second")
    (place := tmp_path / "place").mkdir()
    pack(plan, place)
    flip_bit(tmp_path / "member0", 3 * MIB)

    with pytest.raises(IntegrityError, match=r"member0: changed while it was being packed"):
        pack(plan, place)


def test_how_much_is_there_already_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, bytes(10 * MIB), volume_size=4 * MIB)
    (place := tmp_path / "place").mkdir()
    pack(plan, place)
    (place / "payload.00003").unlink()
    watching = Watching()

    write_payload(plan, place, watching)

    [note] = watching.notes
    assert note.startswith("continuing: 8 MiB of 10 MiB are already written; ")
    assert [task.done for task in watching.tasks] == [plan.layout.size]


_BUILD = """
import os
import sys
from pathlib import Path
from packager.connected.build import build
from packager.connected.cache import Cache
from packager.connected.signing.keys import open_key
from packager.errors import AirpackError
from support.watching import Watching
from support.workplace import Workplace
recipe, cache, output, volume_size, fill = sys.argv[1:]
key = open_key(Path(recipe).with_name("team.key"), None)
place = Workplace(Path(recipe), key, Cache(Path(cache)))
other = Path(output, "of-another")
class Filling(Watching):
    # Has another fill the disk with so many bytes, once all was found to fit.
    def task(self, label, total, **more):
        if label == "packing" and int(fill):
            other.write_bytes(bytes(int(fill)))
        return super().task(label, total, **more)
watching = Filling()
try:
    build(place.request(Path(output), int(volume_size)), place.cache, watching)
except AirpackError as error:
    watching.notes.append(f"{error.exit_code} {error.message}: {error.hint}")
print(*watching.notes, sep="\\n")
other.unlink(missing_ok=True)
"""


def build_command(workplace: Workplace, output: Path, fill: int = 0) -> list[str]:
    """A build in a process of its own, that prints its notes and its error."""
    words = (workplace.recipe, workplace.cache.root, output, VOLUME_SIZE, fill)
    return [sys.executable, "-c", _BUILD, *map(str, words)]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=child_env(), capture_output=True, text=True, timeout=120, check=False
    )


def hidden(output: Path) -> Path:
    return output / ".demo-1.0.0.unfinished"


def contents(bundle: Path) -> dict[str, bytes]:
    """All that is the same in two builds: a signature has randomness in it."""
    return {
        p.name: p.read_bytes()
        for p in bundle.iterdir()
        if not p.name.endswith((".sig", ".dsse.json"))
    }


def request_of(workplace: Workplace, output: Path) -> BuildRequest:
    return workplace.request(output, VOLUME_SIZE)


@pytest.fixture(scope="module")
def whole(
    workplace: Workplace, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a build makes that nothing interrupts: three volumes."""
    request = request_of(workplace, tmp_path_factory.mktemp("whole"))
    made = contents(build(request, workplace.cache, Silent()))
    assert {name for name in made if "payload" in name} == {f"payload.0000{n}" for n in (1, 2, 3)}
    return made


@pytest.fixture
def killed(workplace: Workplace, built: Path, tmp_path: Path) -> Path:
    """Where a build was killed as it wrote the third piece of the second volume."""
    output = tmp_path / "out"
    volume = hidden(output) / "payload.00002"
    front = strace(
        "-o", os.devnull, "-P", str(volume), "-e", "inject=pwrite64:signal=KILL:when=3"
    )  # fmt: skip
    assert run([*front, *build_command(workplace, output)]).returncode == -signal.SIGKILL
    assert [path.name for path in output.iterdir()] == [hidden(output).name]
    assert {p.name: p.stat().st_size for p in hidden(output).iterdir()} == {
        "payload.00001": VOLUME_SIZE,
        "payload.00002": 8 * MIB,
    }
    return output


def test_102_a_killed_build_goes_on_and_makes_the_same_bundle(
    workplace: Workplace, whole: dict[str, bytes], killed: Path, tmp_path: Path
) -> None:
    trace = Trace(tmp_path / "trace")

    done = run([*trace.front, *build_command(workplace, killed)])

    assert done.returncode == 0, done.stderr
    assert re.search(r"continuing: 28 MiB of \d+(\.\d)? MiB are already written", done.stdout)
    assert [path.name for path in killed.iterdir()] == ["demo-1.0.0"]
    assert contents(killed / "demo-1.0.0") == whole
    payload = sum(len(data) for name, data in whole.items() if "payload" in name)
    moves = trace._moves(f"{hidden(killed)}/payload.")
    assert sum(m.size for m in moves if "write" in m.call) == payload - 28 * MIB
    host = make_host(tmp_path / "home", workplace.key)
    assert host.verify(killed / "demo-1.0.0").ok


def test_a_bit_that_flipped_in_what_a_killed_build_left_does_not_get_onto_the_medium(
    workplace: Workplace, whole: dict[str, bytes], killed: Path
) -> None:
    flip_bit(hidden(killed) / "payload.00001", 9 * MIB)

    made = build(request_of(workplace, killed), workplace.cache, Silent())

    assert contents(made) == whole


def test_another_plan_takes_over_what_is_the_same_and_leaves_nothing_of_the_old_one(
    workplace: Workplace, whole: dict[str, bytes], killed: Path, tmp_path: Path
) -> None:
    """The recipe has lost a variant, and volumes are larger; also a document is there already."""
    (hidden(killed) / "SHA256SUMS.0000000000000000.sig").write_bytes(b"of an old key")
    (hidden(killed) / "payload.00009").write_bytes(b"of more volumes")

    def shrunk(output: Path) -> BuildRequest:
        request = workplace.request(output)
        recipe = replace(request.recipe, variants=request.recipe.variants[:1])
        return replace(request, recipe=recipe)

    made = build(shrunk(killed), workplace.cache, Silent())

    assert contents(made) == contents(build(shrunk(tmp_path), workplace.cache, Silent()))
    assert len([*made.glob("*SHA256SUMS*.sig")]) == 2
    assert [path.name for path in killed.iterdir()] == ["demo-1.0.0"]


def test_99_a_build_that_a_full_disk_ended_goes_on_once_there_is_room(
    workplace: Workplace, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Another fills the disk as soon as all was found to fit, and frees it afterwards."""
    size = sum(map(len, whole.values())) + (2 << 20)
    (disk := tmp_path / "disk").mkdir()
    first = build_command(workplace, disk, fill=60 * MIB)
    second = build_command(workplace, disk)
    script = " ".join(f"'{word}'" for word in (sys.executable, "-c", _TWICE, *first, "--", *second))

    done = in_small_disk(disk, str(size), script)

    full, left, continued, sums = done.stdout.split("\n--\n")
    assert f"13 {hidden(disk)}/payload.00003: no space left" in full, done.stdout + done.stderr
    assert f"stay in {hidden(disk)}, and the same command goes on there" in full
    assert left == ".demo-1.0.0.unfinished"
    assert "\ncontinuing: 4" in continued  # 40 MiB and a bit
    assert sums.strip() == str(Digest.of(whole["SHA256SUMS"]))


_TWICE = """
import hashlib, subprocess, sys
from pathlib import Path
at = sys.argv.index("--")
first, second = sys.argv[1:at], sys.argv[at + 1:]
place = Path(first[-3])
def say(words):
    print(words, "--", sep="\\n")
say(subprocess.run(first, capture_output=True, text=True).stdout.strip())
say(" ".join(path.name for path in place.iterdir()))
say(subprocess.run(second, capture_output=True, text=True).stdout.strip())
print(hashlib.sha256((place / "demo-1.0.0" / "SHA256SUMS").read_bytes()).hexdigest())
"""


@pytest.mark.parametrize(
    "refusal",
    ["fcntl:error=EINVAL:when=2+2", "pwrite64:error=EINVAL:when=1", "pread64,preadv:error=EIO"],
)
def test_a_disk_that_cannot_be_written_to_directly_or_read_gets_the_same_bytes(
    tmp_path: Path, refusal: str
) -> None:
    plan = plan_of(tmp_path, CHANCE.randbytes(20 * MIB + 512))
    (clean := tmp_path / "clean").mkdir()
    (place := tmp_path / "place").mkdir()
    fresh = pack(plan, clean)[1]["payload.00001"]
    volume = place / "payload.00001"
    volume.write_bytes(fresh[: 9 * MIB])
    front = strace("-o", os.devnull, "-P", str(volume), "-e", f"inject={refusal}")

    done = run([*front, sys.executable, "-c", _PACK, str(tmp_path / "member0"), str(place)])

    assert done.returncode == 0, done.stderr
    assert volume.read_bytes() == fresh
