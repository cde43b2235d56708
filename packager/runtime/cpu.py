"""What the engine's arithmetic depends on besides its own build: the CPU and the C library."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MAX_CPUINFO_SIZE = 1 << 20
# Instruction sets that ggml has kernels for: those of x86, then those of Arm.
_FLAGS = (
    "avx", "avx2", "f16c", "fma", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
    "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip


def cpu_kind() -> str:
    """This host's CPU, as :func:`describe_cpu` has it; the machine alone without ``/proc``."""
    try:
        with _CPUINFO.open("rb") as file:
            cpuinfo = file.read(_MAX_CPUINFO_SIZE).decode("utf-8", "replace")
    except OSError:
        cpuinfo = ""
    return describe_cpu(cpuinfo, platform.machine())


def describe_cpu(cpuinfo: str, machine: str) -> str:
    """``x86_64, AMD EPYC, avx avx2 f16c fma``: machine, model name, flags that matter."""
    seen: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        seen.setdefault(key.strip().lower(), " ".join(value.split()))
    flags = set(seen.get("flags", seen.get("features", "")).split())
    model = seen.get("model name") or " ".join(
        seen[key] for key in ("cpu implementer", "cpu part") if key in seen
    )
    return ", ".join(
        part for part in (machine, model, " ".join(f for f in _FLAGS if f in flags)) if part
    )


def libc_kind() -> str:
    """``glibc 2.36``: its mathematical functions differ in the last bit between versions."""
    name, version = platform.libc_ver()
    return f"{name or 'unknown'} {version}".strip()
