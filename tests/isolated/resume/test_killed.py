"""Installs that were killed, at any call: the next one reads only what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import CHUNK_SIZE
from support.hosts import NOW, Host, run_install, strace
from support.resuming import (
    FILES,
    MODEL,
    SIZE,
    begin,
    check_installed,
    install_traced,
    kill_install,
)

from packager.format.digest import Digest
from packager.isolated.lifecycle import free_space, uninstall


def test_a_fresh_install_reads_each_byte_once_and_writes_it_once(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    trace, read = install_traced(running, bundle, tmp_path)
    check_installed(running)
    assert read >= SIZE
    # No byte is copied within the disk: at no time is more than this in use.
    assert SIZE <= trace.bytes_written(running.home.root) <= SIZE * 1.01
    assert trace.bytes_read(running.home.partials) == 0  # digests grew as it was written


@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("pwrite64", 2), ("pwrite64", 4), ("pwrite64", 7),
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


@pytest.mark.parametrize("spoil", ["zeros", "noise", "short", "long", "swapped", "empty"])
def test_what_a_power_cut_left_is_read_and_not_believed(
    tmp_path: Path, running: Host, bundle: Path, spoil: str
) -> None:
    begin(running, bundle)
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
