"""Installs that a person or a bad stick stopped: what they say, and what the next one spares."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.bundles import CHUNK_SIZE, EngineVariant, flip_bit, make_bundle
from support.hosts import Host, child_env, install_command, run_install, strace
from support.resuming import (
    FILES,
    SIZE,
    check_installed,
    install_traced,
    interrupt_install,
)
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError


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
