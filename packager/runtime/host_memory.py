"""The memory and the GPUs of this host, as far as it says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_DRM = Path("/sys/class/drm")
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_SECONDS = 10


@dataclass(frozen=True)
class HostMemory:
    """Bytes that processes of this account may take: ``total``, and what is ``available`` now."""

    total: int
    available: int


@dataclass(frozen=True)
class Gpu:
    """A graphics processor and its memory in bytes."""

    name: str
    memory: int


def read_host_memory() -> HostMemory | None:
    """What ``/proc/meminfo`` says, or a control group that allows less; ``None`` without them."""
    try:
        memory = parse_meminfo(_MEMINFO.read_text("ascii"))
    except (OSError, ValueError):
        return None
    for limit, used in _group_limits():
        memory = HostMemory(min(memory.total, limit), min(memory.available, max(0, limit - used)))
    return memory


def parse_meminfo(text: str) -> HostMemory:
    """Read proc(5)'s ``meminfo``; raises ``ValueError`` where it is not as that says."""
    sizes = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in ("MemTotal", "MemAvailable"):
            sizes[key] = int(value.split()[0]) << 10
    if len(sizes) != 2:
        raise ValueError("meminfo states no memory")
    return HostMemory(sizes["MemTotal"], sizes["MemAvailable"])


def _group_limits() -> Iterable[tuple[int, int]]:
    """The limit and the use of each control group that this process is in, version 2."""
    with suppress(OSError):
        for line in _CGROUP.read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                group = _CGROUPS / line[len("0::/") :]
                for directory in (group, *group.parents):
                    with suppress(OSError, ValueError):
                        limit = int((directory / "memory.max").read_text("ascii"))
                        yield limit, int((directory / "memory.current").read_text("ascii"))
                    if directory == _CGROUPS:
                        break


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs whose driver is loaded: NVIDIA's by its own tool, AMD's from sysfs."""
    return (*_nvidia(), *_amd())


def _nvidia() -> Iterable[Gpu]:
    if shutil.which(_NVIDIA_SMI[0]) is None:
        return
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            _NVIDIA_SMI, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        yield from parse_nvidia_smi(done.stdout)


def parse_nvidia_smi(text: str) -> Iterable[Gpu]:
    """Read lines of ``NVIDIA H100, 81559``: name, MiB."""
    for line in text.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name and mebibytes.strip().isdecimal():
            yield Gpu(name.strip(), int(mebibytes) << 20)


def _amd() -> Iterable[Gpu]:
    for path in sorted(_DRM.glob("card*/device/mem_info_vram_total")):
        with suppress(OSError, ValueError):
            yield Gpu("AMD", int(path.read_text("ascii")))
