"""From C sources to a shared object in the cache, made for this CPU by this host's compiler.

    kernels/<key>-<digest>.so    key: sources, compiler, flags; digest: sha256 of the file itself

A file that does not hash to its own name is deleted and made again. It is code, so neither it nor
its folder may be anybody else's to change.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from packager.errors import EngineError
from packager.format.digest import Digest
from packager.store.atomic import make_directory, naming_refusals, read_capped, write_file
from packager.store.cache_root import cache_root

_SOURCES = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_MAX_SIZE = 16 << 20
_TIMEOUT_SECONDS = 300
_OTHERS_CAN_WRITE = 0o022

# A fused multiplication and addition rounds once, where ggml's rounds twice.
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fPIC", "-mf16c", "-mavx2")
_FLAGS_512 = ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw")


class Vectors(NamedTuple):
    """A CPU's vectors: their ``name``, what ``/proc/cpuinfo`` calls them, the compiler's flags."""

    name: str
    features: frozenset[str]
    flags: tuple[str, ...]


VECTORS = (
    Vectors(
        "AVX-512",
        frozenset({"avx2", "f16c", "avx512f", "avx512vl", "avx512dq", "avx512bw"}),
        (*_FLAGS, *_FLAGS_512),
    ),
    Vectors("AVX2", frozenset({"avx2", "f16c"}), _FLAGS),
)


def find_vectors(cpuinfo: Path = Path("/proc/cpuinfo")) -> Vectors:
    """The widest vectors of this CPU; raises ``EngineError`` if it has none that will do."""
    features = _features(cpuinfo)
    for vectors in VECTORS:
        if vectors.features <= features:
            return vectors
    raise EngineError("this CPU has no AVX2")


def compile_for(vectors: Vectors) -> Path:
    """The shared object for ``vectors``, out of the cache or compiled now.

    Raises ``EngineError`` without a compiler, or if it fails; ``HostError`` or ``NoSpaceError``
    where the cache cannot be written.
    """
    compiler = _find_compiler()
    folder = _cache_folder()
    key = _key(compiler, vectors.flags)
    return _find_cached(folder, key) or _compile(compiler, vectors.flags, folder, key)


def _features(cpuinfo: Path) -> frozenset[str]:
    if platform.machine() != "x86_64":
        return frozenset()
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _find_compiler() -> str:
    for name in _COMPILERS:
        if path := shutil.which(name):
            return path
    raise EngineError("no C compiler found")


def _cache_folder() -> Path:
    """The folder for kernels; raises ``EngineError`` if others could put their code there."""
    try:
        folder = cache_root() / "kernels"
    except RuntimeError:
        raise EngineError("no home directory to keep them in") from None
    make_directory(folder)
    if not _is_private(folder.lstat()):
        raise EngineError(f"{folder}: others can write there")
    with naming_refusals(folder):
        for above in folder.resolve().parents:
            if _is_open_to_all(above.stat()):
                raise EngineError(f"{above}: anybody can put another folder there")
    return folder


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_CAN_WRITE


def _is_open_to_all(status: os.stat_result) -> bool:
    """Whether anybody may rename what lies in a folder; with the sticky bit, only its owner may."""
    return bool(status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    version = _run([compiler, "--version"])
    parts = [compiler, version, *flags]
    for path in _source_files():
        parts += [path.name, path.read_text("utf-8")]
    return Digest.of("\0".join(parts).encode()).hex[:32]


def _source_files() -> Iterator[Path]:
    yield from sorted(path for path in _SOURCES.iterdir() if path.suffix in (".c", ".h"))


def _find_cached(folder: Path, key: str) -> Path | None:
    with naming_refusals(folder):
        for path in sorted(folder.glob(f"{key}-*.so")):
            if _is_whole(path):
                return path
            path.unlink()
    return None


def _is_whole(path: Path) -> bool:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or not _is_private(status):
        return False
    return Digest.of(read_capped(path, _MAX_SIZE)).hex == path.stem.partition("-")[2]


def _compile(compiler: str, flags: tuple[str, ...], folder: Path, key: str) -> Path:
    sources = [path for path in _source_files() if path.suffix == ".c"]
    with naming_refusals(folder), tempfile.TemporaryDirectory(prefix="airpack-") as temporary:
        objects = [f"{temporary}/{path.stem}.o" for path in sources]
        commands = [
            [compiler, *flags, "-c", "-o", made, str(source)]
            for source, made in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_run, commands))
        made = Path(temporary) / "kernels.so"
        _run([compiler, "-shared", "-o", str(made), *objects, "-lm"])
        data = read_capped(made, _MAX_SIZE)
    path = folder / f"{key}-{Digest.of(data)}.so"
    write_file(path, data, mode=0o755)
    return path


def _run(command: list[str]) -> str:
    """What ``command`` prints; raises ``EngineError`` if it fails."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise EngineError(f"{command[0]} failed: {_complaint(error.stderr)}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{command[0]} failed: {error}") from None


def _complaint(stderr: str) -> str:
    """The line of a compiler's messages that says most."""
    lines = stderr.strip().splitlines() or ["without a word"]
    return next((line for line in lines if "error" in line), lines[-1])
