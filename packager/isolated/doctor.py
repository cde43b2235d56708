"""Whether this host can run what a bundle brings: what was found, what is needed, what to do."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packager.format.sizes import format_size
from packager.runtime.cpu import cpu_kind
from packager.runtime.environment import ENGINE
from packager.runtime.host_memory import find_gpus, read_host_memory
from packager.store.filesystem import nearest_existing, read_filesystem
from packager.store.home import Home

# What the engine's wheel is built for: it has no other code to fall back to.
CPU_FLAGS = ("avx2", "f16c", "fma", "bmi2")
LEAST_GLIBC = (2, 17)
LEAST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``needed`` is empty where it only informs; ``hint`` is what to do.

    With a hint, what is ``ok`` is still something to look at.
    """

    what: str
    found: str
    needed: str = ""
    ok: bool = True
    hint: str | None = None


def examine_host(home: Home) -> tuple[Finding, ...]:
    """Look at this host; raises ``HostError`` where the system refuses to say."""
    return (
        *examine_engine(),
        judge_python(sys.version_info[:2]),
        _memory(),
        *_gpus(),
        _disk(home),
    )


def examine_engine() -> tuple[Finding, ...]:
    """Whether the engine is here, and can run on this system, CPU and C library."""
    return (
        _system(platform.system(), platform.machine()),
        judge_cpu(cpu_kind()),
        judge_libc(*platform.libc_ver()),
        _engine(),
    )


def _system(name: str, machine: str) -> Finding:
    return Finding(
        "system", f"{name} {machine}", "Linux x86_64", (name, machine) == ("Linux", "x86_64")
    )


def judge_cpu(kind: str) -> Finding:
    """Whether the CPU called ``kind`` (see ``describe_cpu``) has what the engine is built for."""
    missing = [flag for flag in CPU_FLAGS if flag not in kind.replace(",", " ").split()]
    hint = f"this CPU lacks {', '.join(missing)}: use another host" if missing else None
    return Finding("CPU", kind, " ".join(CPU_FLAGS), not missing, hint)


def judge_libc(name: str, number: str) -> Finding:
    """Whether the C library is glibc, and new enough for the wheels."""
    parts = tuple(int(part) for part in number.split(".")[:2] if part.isdecimal())
    ok = name == "glibc" and parts >= LEAST_GLIBC
    least = ".".join(map(str, LEAST_GLIBC))
    return Finding(
        "C library", f"{name or 'unknown'} {number}".strip(), f"glibc {least} or later", ok,
        None if ok else "use a host with a newer glibc; musl does not run the wheels",
    )  # fmt: skip


def judge_python(number: tuple[int, ...]) -> Finding:
    """Whether this interpreter is one that airpack runs on."""
    found, least = (".".join(map(str, pair)) for pair in (number, LEAST_PYTHON))
    ok = number >= LEAST_PYTHON
    return Finding("Python", found, f"{least} or later", ok)


def _engine() -> Finding:
    try:
        return Finding("engine", f"{ENGINE} {version(ENGINE)}", ENGINE)
    except PackageNotFoundError:
        hint = "sh setup.sh of a bundle brings it; or pip install 'airpack[run]'"
        return Finding("engine", "none", ENGINE, ok=False, hint=hint)


def _memory() -> Finding:
    memory = read_host_memory()
    if memory is None:
        return Finding("memory", "not known")
    return Finding("memory", f"{format_size(memory.available)} of {format_size(memory.total)} free")


def _gpus() -> tuple[Finding, ...]:
    """The GPUs, for those who carry variants for them: the engine here runs on the CPU."""
    return tuple(Finding("GPU", f"{gpu.name}, {format_size(gpu.memory)}") for gpu in find_gpus())


def _disk(home: Home) -> Finding:
    place = nearest_existing(home.root)
    filesystem = read_filesystem(place)
    may = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    writable = may and not filesystem.read_only
    return Finding(
        "home", f"{home.root}: {filesystem.kind or 'filesystem not known'}, "
        f"{format_size(filesystem.free)} free",
        "a place to write to", writable,
        None if writable else "export AIRPACK_HOME=DIRECTORY, where this account may write",
    )  # fmt: skip
