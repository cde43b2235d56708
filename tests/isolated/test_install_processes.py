"""Installs in processes of their own: killed, refused by the system, watched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, DEFAULT_FILES, make_bundle
from support.hosts import Host, child_env, in_small_disk, install_command, run_install, strace
from support.tiny_source import weights

from packager.connected.signing.keys import SigningKey
from packager.isolated.trust_store import read_sequences
from packager.store.blobs import collect_garbage

WEIGHTS = weights(bytes(range(251)) * 1500)
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}", "a": b"a"}
CHANGING = ("pwrite64", "write", "ftruncate", "fsync", "fchmod", "chmod", "mkdir", "link",
            "symlink", "rename", "unlink", "unlinkat", "rmdir")  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    """A newer release."""
    return make_bundle(
        tmp_path / "stick", [key], sequence=2, files=FILES, volume_size=2 * CHUNK_SIZE
    )


def leftovers(host: Host) -> list[str]:
    marks = ("partial", ".tmp-", ".staging", ".removed-")
    paths = (path.relative_to(host.home.root).as_posix() for path in host.home.root.rglob("*"))
    return [path for path in paths if any(mark in path for mark in marks)]


def check_intact(host: Host, number: int) -> None:
    """Generation ``number`` is current and all its files have their bytes."""
    assert host.current() == number
    directory = host.home.models / "tiny" / str(number) / "original"
    for name, data in (DEFAULT_FILES if number == 1 else FILES).items():
        assert (directory / name).read_bytes() == data


def kill(host: Host, bundle: Path, call: str, when: int) -> tuple[bool, int]:
    """Kill an install at a call; returns whether it got that far, and what was current then."""
    front = strace("-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={when}")
    killed = run_install(host.home, bundle, before=front).returncode != 0
    number = host.current()
    check_intact(host, number)
    if number == 2:  # all was done; the kill, if any, came while it tidied up
        assert host.events()[-1].details["generation"] == 2
        mark = read_sequences(host.home).find("tiny")
        assert mark is not None
        assert mark.sequence == 2
    host.install(bundle)
    check_intact(host, host.current())
    assert host.current() >= 2
    assert leftovers(host) == []
    assert collect_garbage(host.home) == 0
    assert host.events()[-1].what == "install"
    return killed, number


@pytest.mark.parametrize(
    ("call", "when"),
    [("pwrite64", 2), ("fsync", 2), ("rename", 3), ("link", 2), ("write", 2), ("symlink", 1)],
)  # fmt: skip
def test_102_a_killed_install_leaves_the_old_generation_and_the_next_one_succeeds(
    running: Host, bundle: Path, call: str, when: int
) -> None:
    assert kill(running, bundle, call, when) == (True, 1)


@pytest.mark.sweep
@pytest.mark.parametrize("call", CHANGING)
def test_102_an_install_may_be_killed_at_every_call_that_changes_a_file(
    running: Host, bundle: Path, call: str
) -> None:
    for when in range(1, 400):
        place = running.home.root.with_name(f"home {when}")
        subprocess.run(["cp", "-a", running.home.root, place], check=True)
        host = Host(type(running.home)(place), running.keyring)
        killed, _ = kill(host, bundle, call, when)
        if not killed:
            return
    pytest.fail(f"the install never came to its end without {call}")


@pytest.mark.parametrize(
    ("call", "fault", "code"),
    [
        ("pwrite64:when=2", "ENOSPC", "NoSpaceError"),
        ("fsync:when=1", "EIO", "IntegrityError"),
        ("link:when=2", "EMLINK", "HostError"),
        ("symlink", "EDQUOT", "NoSpaceError"),
        ("rename:when=1", "EROFS", "HostError"),
    ],
)
def test_99_100_101_what_the_system_refuses_leaves_everything_as_it_was(
    running: Host, bundle: Path, call: str, fault: str, code: str
) -> None:
    before = running.state()
    name, _, when = call.partition(":")
    inject = f"inject={name}:error={fault}" + (f":{when}" if when else "")
    done = run_install(running.home, bundle, before=strace("-o", os.devnull, "-e", inject))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{code}: {running.home.root}"), done.stderr
    assert "Traceback" not in done.stderr
    assert running.state() == before
    check_intact(running, 1)


FULL = """
import sys
from pathlib import Path
from support.hosts import Host
from support.watching import Watching
from packager.errors import AirpackError
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
home = Home(Path(sys.argv[1]))
host = Host(home, read_keyring(home))
class Filling(Watching):
    def task(self, label, total, **options):
        with open(home.root.parent / "fill", "wb", buffering=0) as stream:
            try:
                while stream.write(bytes(4096)): pass
            except OSError: pass
        return super().task(label, total)
before = host.state()
try:
    host.install(Path(sys.argv[2]), progress=Filling())
except AirpackError as error:
    print(type(error).__name__, error.message)
print(host.state() == before, host.current())
"""


@pytest.mark.parametrize(
    ("size", "fact"),
    [("6m", r": .* MiB needed, .* MiB free"), ("16m", r"/partial/.*: no space left")],
)
def test_99_a_full_disk_leaves_the_old_generation_current(
    tmp_path: Path, running: Host, bundle: Path, size: str, fact: str
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    script = (
        f'cp -a "{running.home.root}" "$PLACE/home" && {sys.executable} -c \'{FULL}\' '
        f'"$PLACE/home" "{bundle}"'
    )
    done = in_small_disk(place, size, script)
    first, second = done.stdout.splitlines()
    assert re.match(f"NoSpaceError {place}/home{fact}$", first)
    assert second == "True 1"


def test_103_of_two_installs_at_once_one_is_refused_or_both_succeed_in_turn(
    running: Host, bundle: Path
) -> None:
    processes = [
        subprocess.Popen(
            install_command(running.home, bundle),
            env=child_env(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    faults = [process.communicate(timeout=120)[1] for process in processes]
    good = faults.count("")
    assert good >= 1
    assert all("another airpack, process" in fault for fault in faults if fault)
    check_intact(running, 1 + good)
    assert leftovers(running) == []
    assert [e.what for e in running.events()].count("install") == 1 + good
