"""Where kernels cannot be compiled, or not be trusted, ggml's own do the work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import files_of, write_llama
from support.watching import Watching

from packager.errors import EngineError
from packager.progress import Silent
from packager.quantize.kernels import Kernels, load_kernels
from packager.quantize.pipeline import quantize
from packager.quantize.simd.compiled import KINDS, Compiled, load_compiled
from packager.quantize.simd.compiling import find_vectors

REAL = shutil.which("cc") or pytest.skip("no C compiler", allow_module_level=True)
FIRST_USE = "from packager.quantize.kernels import load_kernels as k; print(k().compiled.summary)"


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A compiler that takes no trouble: these tests are about its libraries, not their speed."""
    with pytest.MonkeyPatch.context() as patch:
        compiler_that(f'exec {REAL} "$@" -O0', tmp_path_factory.mktemp("quick") / "bin", patch)
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with compiled kernels in it."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRPACK_CACHE", str(cache))
        assert load().is_complete
    return cache


@pytest.fixture
def cache(compiled_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for kernels in a cache of this test's own, with kernels in it."""
    shutil.copytree(compiled_once, tmp_path / "cache")
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def without_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PATH with nothing on it, and kernels that are loaded anew."""
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    load_kernels.cache_clear()
    yield
    load_kernels.cache_clear()


def load() -> Compiled:
    """What is found in, or compiled into, the cache of the environment."""
    return load_compiled(load_kernels().library)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def assert_whole(path: Path) -> None:
    """It is a shared object again, under the digest of its own bytes."""
    digest = subprocess.run(
        ["/usr/bin/sha256sum", path], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    assert path.name.endswith(f"-{digest}.so")
    assert path.read_bytes().startswith(b"\x7fELF")


def compiler_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a ``cc`` of our own in front of the compiler."""
    folder.mkdir()
    script = folder / "cc"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_compiled_kernels_are_found_again_not_compiled(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = only_file(cache)
    written = before.stat().st_mtime_ns
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere to compile in"))

    assert load().is_complete

    assert only_file(cache) == before
    assert before.stat().st_mtime_ns == written


def test_without_a_compiler_ggml_does_the_work_with_the_same_bytes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = files_of(write_llama(tmp_path / "model", dtype="F16"))
    quantize(files, "Q4_K_M", tmp_path / "fast.gguf", name="m", progress=Silent())
    request.getfixturevalue("without_compiler")
    progress = Watching()

    quantize(files, "Q4_K_M", tmp_path / "slow.gguf", name="m", progress=progress)

    assert load_kernels().compiled.functions == {}
    assert "quantization kernels are ggml's own: no C compiler found" in progress.notes
    assert (tmp_path / "slow.gguf").read_bytes() == (tmp_path / "fast.gguf").read_bytes()


@pytest.mark.parametrize("flags", ["flags : fpu sse2 avx f16c", "", None])
def test_a_cpu_without_avx2_is_left_to_ggml(flags: str | None, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(flags)

    with pytest.raises(EngineError, match="no AVX2"):
        find_vectors(cpuinfo)


@pytest.mark.parametrize("harm", ["cut short", "one bit flipped", "empty", "a link", "a FIFO"])
def test_a_harmed_library_in_the_cache_is_made_again(cache: Path, harm: str) -> None:
    path = only_file(cache)
    data = bytearray(path.read_bytes())
    path.unlink()
    if harm == "cut short":
        path.write_bytes(data[:-1])
    elif harm == "one bit flipped":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif harm == "empty":
        path.touch()
    elif harm == "a link":
        elsewhere = cache.parent / "elsewhere"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    else:
        os.mkfifo(path)

    assert load().is_complete

    assert_whole(only_file(cache))


def test_a_library_that_others_may_write_is_made_again(cache: Path) -> None:
    path = only_file(cache)
    path.chmod(0o777)

    assert load().is_complete

    assert only_file(cache).stat().st_mode & 0o022 == 0


def test_nothing_is_loaded_from_a_folder_that_others_may_write(cache: Path) -> None:
    cache.chmod(0o777)

    found = load()

    assert found.functions == {}
    assert "others can write there" in found.summary


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "file"))

    found = load()

    assert found.functions == {}
    assert found.summary.startswith("ggml's own: ")


def test_another_compiler_makes_its_own_library(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = only_file(cache)
    compiler_that(f'exec {REAL} "$@" -O0', tmp_path / "bin", monkeypatch)

    assert load().is_complete

    assert {path.name.partition("-")[0] for path in cache.iterdir()} > {
        before.name.partition("-")[0]
    }


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    says = "echo 'lanes.h:9: error: no such file' >&2; echo 'compilation terminated.' >&2"
    compiler_that(f"test $1 = --version || {{ {says}; exit 1; }}", tmp_path / "bin", monkeypatch)

    found = load()

    assert found.functions == {}
    assert found.summary.endswith("cc failed: lanes.h:9: error: no such file")
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []


def test_types_whose_bytes_differ_are_left_to_ggml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here because the compiler fuses what ggml rounds in between."""
    monkeypatch.setenv("AIRPACK_CACHE", str(tmp_path / "cache"))
    compiler_that(f'exec {REAL} "$@" -O2 -mfma -ffp-contract=fast', tmp_path / "bin", monkeypatch)

    found = load()

    left = [kind for kind in KINDS if kind not in found.functions]
    assert "Q4_K" in [kind.name for kind in left]
    assert all(kind.name in found.summary for kind in left)
    kernels = Kernels(load_kernels().library, found)
    source = np.random.default_rng(5).standard_normal((64, 256), np.float32)
    for kind in left:
        ours = np.zeros(kind.row_size(source.size), np.uint8)
        theirs = np.zeros_like(ours)
        kernels.quantize(kind, source.ctypes.data, ours.ctypes.data, rows=64, columns=256)
        kernels.library.ggml_quantize_chunk(
            kind.number, source.ctypes.data, theirs.ctypes.data, 0, 64, 256, None
        )
        np.testing.assert_array_equal(ours, theirs)


def test_two_processes_may_compile_at_the_same_time(tmp_path: Path) -> None:
    environment = {**os.environ, "AIRPACK_CACHE": str(tmp_path / "cache")}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", FIRST_USE],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )

    said = {process.communicate()[0].strip() for process in (first, second)}

    assert said == {f"compiled for {find_vectors().name}"}
    assert_whole(only_file(tmp_path / "cache" / "kernels"))
