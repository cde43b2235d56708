"""``airpack copy``, and a person who changes sticks while a command waits."""

from __future__ import annotations

import json
import os
import pty
import random
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, make_bundle, make_key
from support.disks import on_fat
from support.hosts import in_small_disk
from support.tiny_source import weights

from packager.connected.packing.layout import Member, plan_payload
from packager.format.bundle import encode_bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.sizes import format_size
from packager.format.sums import encode_sums
from packager.format.tar import BLOCK_SIZE, END_SIZE

from .conftest import AIRPACK, Host
from .test_use import Terminal

MODEL = weights(random.Random(5).randbytes(24 * CHUNK_SIZE - 8192))
QUESTION = "Enter once the next medium"
PAYLOAD = [f"payload.{number:05d}" for number in (1, 2, 3, 4, 5, 6)]


@dataclass(frozen=True)
class Built:
    """A bundle of six volumes of 256 KiB at most, and the key to check it by."""

    bundle: Path
    pub: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("built")
    key = make_key(place / "team.key")
    files = {"model.safetensors": MODEL}
    bundle = make_bundle(place / "out", [key], files=files, volume_size=4 * CHUNK_SIZE)
    return Built(bundle, place / "team.key.pub")


@pytest.fixture
def split(built: Built, tmp_path: Path) -> tuple[Path, Path]:
    """Two sticks: the first two volumes on one, the others on the other."""
    sticks = tmp_path / "a", tmp_path / "b"
    for stick, names in zip(sticks, (PAYLOAD[2:], PAYLOAD[:2]), strict=True):
        shutil.copytree(built.bundle, stick / "tiny", ignore=shutil.ignore_patterns(*names))
    return sticks


@contextmanager
def terminal(host: Host, *words: str | Path, before: Sequence[str] = ()) -> Iterator[Terminal]:
    command = [*before, *AIRPACK, *map(str, words)]
    pid, screen = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**host.environment, "TERM": "dumb", "COLUMNS": "300"})
    try:
        yield Terminal(pid, screen)
    finally:
        os.close(screen)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("payload.*"))


def test_a_copy_says_what_each_medium_gets_and_that_no_signature_was_checked(
    host: Host, built: Built, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    done = host.airpack("copy", built.bundle, a, b, "--verify", "--json")
    assert done.code == 0
    whole = sum(path.stat().st_size for path in built.bundle.iterdir())
    small = sum(path.stat().st_size for path in (b / built.bundle.name).iterdir())
    assert done.document == {
        "ok": True,
        "media": [
            {"path": str(a / built.bundle.name), "volumes": PAYLOAD, "size": whole},
            {"path": str(b / built.bundle.name), "volumes": [], "size": small},
        ],
        "left": [],
        "left_size": 0,
        "least_medium": None,
        "verified": True,
        "signatures_checked": False,
    }
    assert f"{a / built.bundle.name}: " in done.err
    assert f"({whole} bytes): {', '.join(PAYLOAD)}, and the small files; " in done.err
    assert f"({small} bytes): no volume, and the small files; " in done.err
    assert done.err.count(" of it to be written, and room for ") == 2
    again = host.airpack("copy", built.bundle, a)
    assert "and the small files; all there, and room for " in again.err
    assert again.out.splitlines()[-1] == (
        f"no signature was checked: airpack verify {a / built.bundle.name}"
    )
    assert host.airpack("verify", b, a, "--pub", built.pub).code == 0


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("nowhere", 2, "no such directory"),
        ("out", 2, "is the bundle to copy, or inside it"),
        ("file", 2, "no such directory"),
    ],
)
def test_a_target_that_cannot_be_one_is_named(
    host: Host, built: Built, tmp_path: Path, target: str, code: int, said: str
) -> None:
    (tmp_path / "file").touch()
    place = built.bundle.parent if target == "out" else tmp_path / target
    done = host.airpack("copy", built.bundle, place)
    assert done.code == code
    assert done.out == ""
    assert said in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_file_size_limit_is_no_space_and_no_traceback(
    host: Host, built: Built, tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh"]
    done = host.airpack("copy", built.bundle, tmp_path, before=limited)
    assert done.code == 13
    assert "payload.00001: the file is too large for this filesystem" in done.err
    assert host.airpack("copy", built.bundle, tmp_path).code == 0


def airpack_line(host: Host, *words: object) -> str:
    quoted = " ".join(f'"{word}"' for word in words)
    return f'AIRPACK_HOME="{host.home}" {" ".join(AIRPACK)} {quoted}'


def test_a_full_medium_without_anybody_to_ask_names_what_is_left_and_the_next_run_goes_on(
    host: Host, built: Built, tmp_path: Path
) -> None:
    place, more = tmp_path / "stick", tmp_path / "more"
    place.mkdir()
    more.mkdir()
    first = airpack_line(host, "copy", built.bundle, place, "--no-input", "--json")
    second = airpack_line(host, "copy", built.bundle, place, more, "--no-input")
    verify = airpack_line(host, "verify", more, place, "--pub", built.pub)
    done = in_small_disk(place, "1792k", f"{first}; echo $?; {second} && {verify}; echo $?")
    title = built.bundle.name
    small = sum(p.stat().st_size for p in built.bundle.iterdir() if p.name not in PAYLOAD)
    sizes = [(built.bundle / name).stat().st_size for name in PAYLOAD[2:]]
    assert f"error: {title}: still to be copied: payload.00003, payload.00004, " in done.stderr
    needed = f"a medium needs {format_size(small + sizes[-1])} ({small + sizes[-1]} bytes) at least"
    assert done.stderr.count(needed) == 2  # beforehand, and in the end
    assert f"try: airpack copy {built.bundle} {place} NEXT, where" in done.stderr
    document, _, rest = done.stdout.partition("\n12\n")
    assert '"ok": false' in document
    assert json.loads(document)["left"] == PAYLOAD[2:]
    assert json.loads(document)["left_size"] == sum(sizes)
    assert json.loads(document)["least_medium"] == small + sizes[-1]
    assert rest.splitlines()[0].startswith(f"copied: {place}/{title}, 2 volumes")
    assert rest.splitlines()[-1] == "0"
    assert names(more / title) == PAYLOAD[2:]


def test_a_medium_that_takes_no_volume_at_all_is_refused_before_anything(
    host: Host, built: Built, tmp_path: Path
) -> None:
    line = airpack_line(host, "copy", built.bundle, tmp_path, "--no-input")
    done = in_small_disk(tmp_path, "1200k", f'{line}; echo $?; ls -A "$PLACE"')
    assert done.stdout == "13\n"
    assert "no room for payload.00001, which is 256 KiB, nor for any other" in done.stderr
    assert f"error: {tmp_path} (" in done.stderr
    assert " free beside the small files)" in done.stderr


def test_105_a_volume_that_fat32_does_not_take_is_refused_before_anything(
    host: Host, tmp_path: Path
) -> None:
    bundle, stick = sparse_bundle(tmp_path), tmp_path / "stick"
    stick.mkdir()
    line = on_fat(*AIRPACK, "copy", bundle, stick, "--no-input")
    done = in_small_disk(stick, "64m", f'{line}; echo $?; ls -A "$PLACE"')
    assert done.stdout == "13\n"
    assert f"{stick}: payload.00001 is 4294967296 bytes, and a file on vfat (FAT)" in done.stderr
    assert "or build again with --volume-size auto" in done.stderr
    elsewhere = in_small_disk(stick, "64m", shlex.join(map(str, [*AIRPACK, "copy", bundle, stick])))
    assert "no room for payload.00001, which is 4 GiB" in elsewhere.stderr


def sparse_bundle(directory: Path) -> Path:
    """A bundle of one volume of 4 GiB that takes no room, and is none that anybody signed."""
    index = parse_bundle((make_bundle(directory, []) / "bundle.json").read_bytes())
    path, size = index.files[0].path, (1 << 32) - BLOCK_SIZE - END_SIZE
    plan = plan_payload([Member(path, directory, size, Digest.of(b""))], 1 << 33)
    payload, _ = plan.draft()
    index = replace(index, payload=payload, volumes=plan.volumes, files=plan.files)
    bundle = directory / "big"
    bundle.mkdir()
    (bundle / "bundle.json").write_bytes(encode_bundle(index))
    with (bundle / plan.volumes[0].name).open("wb") as stream:
        stream.truncate(plan.volumes[0].size)
    sums = {"bundle.json": Digest.of(encode_bundle(index)), "payload.00001": Digest.of(b"")}
    (bundle / "SHA256SUMS").write_bytes(encode_sums(sums))
    return bundle


def test_on_a_terminal_a_full_medium_asks_for_the_next(
    host: Host, built: Built, tmp_path: Path
) -> None:
    stick, more = tmp_path / "stick", tmp_path / "more"
    stick.mkdir()
    more.mkdir()
    assert in_small_disk(stick, "1792k", "true").returncode == 0
    script = 'mount -t tmpfs -o size=1792k,mode=755 tmpfs "$0" && exec "$@"'
    before = ["unshare", "-rm", "sh", "-c", script, str(stick)]
    with terminal(host, "copy", built.bundle, stick, before=before) as person:
        person.wait_for("still to be copied: payload.00003, payload.00004, payload.00005")
        person.wait_for(QUESTION)
        person.press("\n")
        person.wait_for("no room there for any of them")
        person.press(f"{tmp_path / 'nowhere'}\n")
        person.wait_for("no such directory")
        person.press(f"{more}\n")
        person.wait_for(f"copied: {stick}/{built.bundle.name}, 2 volumes")
        person.wait_for(f"copied: {more}/{built.bundle.name}, 4 volumes")
        assert person.end() == 0
    assert names(more / built.bundle.name) == PAYLOAD[2:]


def test_verify_waits_for_the_next_medium_and_says_which_volume_is_where(
    host: Host, built: Built, split: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = split
    (tmp_path / "empty").mkdir()
    with terminal(host, "verify", b, "--pub", built.pub, "-v") as person:
        person.wait_for("missing payload.00001, payload.00002")
        person.wait_for(QUESTION)
        person.press("\n")  # nothing new there
        person.wait_for("missing payload.00001, payload.00002")
        person.press(f"{tmp_path / 'empty'}\n")
        person.wait_for("not a bundle")
        person.press(f"{a}\n")
        person.wait_for(f"good: payload.00001, {a}/tiny")
        person.wait_for(f"good: payload.00003, {b}/tiny")
        person.wait_for("ok: tiny-1.0.0")
        assert person.end() == 0


def test_a_medium_of_another_bundle_is_not_taken(
    host: Host, built: Built, split: tuple[Path, Path], tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", [make_key(tmp_path / "other.key")])
    with terminal(host, "install", split[0], "--pub", built.pub, "--no-smoke") as person:
        person.wait_for(QUESTION)
        person.press(f"{other}\n")
        person.wait_for("holds another bundle")
        person.wait_for(QUESTION)
        person.press(f"{split[1]}\n")
        person.wait_for("installed: tiny 1.0.0")
        assert person.end() == 0


def test_a_person_may_go_on_without_or_cancel(
    host: Host, built: Built, split: tuple[Path, Path]
) -> None:
    with terminal(host, "verify", split[0], "--pub", built.pub) as person:
        person.wait_for("to go on without")
        person.press("-\n")
        person.wait_for("missing: payload.00003")
        assert person.end() == 12
    with terminal(host, "install", split[0], "--pub", built.pub) as person:
        person.wait_for("to go on without")
        person.press("\x03")
        person.wait_for("cancelled")
        assert person.end() == 130
    assert host.airpack("list", "--json").document == []


def test_without_anybody_to_ask_what_is_missing_is_said_at_once(
    host: Host, built: Built, split: tuple[Path, Path]
) -> None:
    with terminal(host, "verify", split[0], "--pub", built.pub, "--no-input") as person:
        person.wait_for("missing: payload.00003")
        assert person.end() == 12
    assert QUESTION not in person.seen
    assert host.airpack("install", split[0], "--pub", built.pub).code == 12
