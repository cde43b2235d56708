"""Whether a bundle fits this host, found out before a byte of it is written.

What cannot work is a misfit; what only may not, such as memory that others hold just now, is
said and let pass.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from packager.errors import TargetMismatchError
from packager.format.bundle import Bundle, PayloadFile
from packager.format.sizes import format_size
from packager.format.timestamps import parse_timestamp
from packager.format.variant import Variant
from packager.isolated.doctor import Finding, examine_engine
from packager.isolated.resume import room_of
from packager.runtime.host_memory import HostMemory, find_gpus, read_host_memory
from packager.store.blobs import has_blob
from packager.store.filesystem import Filesystem, nearest_existing, read_filesystem
from packager.store.home import Home

# Beside the blobs themselves: links, evidence, the log, and what the filesystem keeps for itself.
SPACE_MARGIN = 8 << 20
# Filesystems without hard or symbolic links, which generations are made of.
_NO_LINKS = frozenset({"vfat", "msdos", "exfat"})


def find_misfits(
    bundle: Bundle, variants: Sequence[Variant], home: Home, *, now: datetime
) -> tuple[Finding, ...]:
    """What stands in the way of running ``variants`` here; none where they fit.

    The space they take is not judged here: see :func:`judge_space`.
    """
    found = examine_fit(bundle, variants, home, now=now)
    return tuple(finding for finding in found if not finding.ok)


def refuse_misfits(misfits: Sequence[Finding]) -> None:
    """Raise ``TargetMismatchError`` that says all of them, if there are any."""
    if not misfits:
        return
    facts = "; ".join(f"{m.what}: {m.found}, needed: {m.needed}" for m in misfits)
    hints = [m.hint for m in misfits if m.hint]
    raise TargetMismatchError(
        f"this host does not fit: {facts}",
        hint=f"{hints[0]}; --force installs in spite of it (it is logged)"
        if hints
        else "airpack doctor BUNDLE says more; --force installs in spite of it (it is logged)",
    )


def examine_fit(
    bundle: Bundle, variants: Sequence[Variant], home: Home, *, now: datetime
) -> tuple[Finding, ...]:
    """Look at this host beside what ``variants`` need; raises ``HostError`` where it cannot."""
    runs = [variant for variant in variants if variant.model is not None]
    memory = read_host_memory()
    return (
        *(examine_engine() if runs else ()),
        judge_target(bundle, platform.system(), platform.machine(), platform.libc_ver()[1]),
        judge_python(bundle, f"{sys.version_info[0]}.{sys.version_info[1]}"),
        *(judge_memory(bundle, variant, memory) for variant in runs),
        *(_judge_gpu(bundle, variant) for variant in variants if variant.model is None),
        judge_filesystem(read_filesystem(nearest_existing(home.root)), home.root),
        judge_clock(bundle, now),
    )


def judge_target(bundle: Bundle, system: str, machine: str, libc: str) -> Finding:
    """Whether the bundle was made for a host of this kind, with as new a C library."""
    kind = f"{system.lower()}_{machine}"
    needed = " or ".join(f"{t.platform} with glibc {t.glibc}" for t in bundle.targets)
    fits = any(t.platform == kind and _number(t.glibc) <= _number(libc) for t in bundle.targets)
    return Finding(
        "target", f"{kind} with glibc {libc or 'unknown'}", needed or "anything",
        fits or not bundle.targets,
        None if fits else "ask for a bundle with this host among the targets of its recipe",
    )  # fmt: skip


def judge_python(bundle: Bundle, python: str) -> Finding:
    """Whether the bundle's own wheels are for this Python: airpack runs here already."""
    pythons = tuple(dict.fromkeys(p for t in bundle.targets for p in t.python))
    hint = "airpack is set up here; setup.sh of this bundle could not do it again"
    return Finding("Python", python, " or ".join(pythons), hint=None if python in pythons else hint)


def judge_memory(bundle: Bundle, variant: Variant, memory: HostMemory | None) -> Finding:
    """Whether the weights, the cache and the buffers of ``variant`` fit this host's memory."""
    base = bundle.base_of(variant) or variant
    need = base.memory
    what = f"memory for {variant.name}"
    if memory is None or need is None:
        return Finding(what, "not known")
    weights = _weights(bundle, base) + (_weights(bundle, variant) if variant.base else 0)
    total = weights + need.cache + need.buffers
    parts = (
        f"{format_size(total)} at {need.context} tokens: weights {format_size(weights)}, cache "
        f"{format_size(need.cache)}, buffers {format_size(need.buffers)}"
    )
    hint = None
    if total > memory.total:
        hint = "install a smaller variant with --variant, or use a host with more memory"
    elif total > memory.available:
        hint = "end what holds memory here before you run it"
    found = f"{format_size(memory.available)} of {format_size(memory.total)} free"
    return Finding(what, found, parts, total <= memory.total, hint)


def _judge_gpu(bundle: Bundle, variant: Variant) -> Finding:
    """How the weights of a variant for another engine compare with the GPUs' memory."""
    weights = sum(file.size for file in bundle.variant_files(variant))
    what, needed = f"GPU for {variant.name}", f"{format_size(weights)} of weights"
    gpus = find_gpus()
    if not gpus:
        return Finding(what, "no GPU driver", needed)
    memory = sum(gpu.memory for gpu in gpus)
    small = f"{variant.name} does not fit the GPUs of this host"
    return Finding(what, format_size(memory), needed, hint=small if memory < weights else None)


def judge_filesystem(filesystem: Filesystem, root: Path) -> Finding:
    """Whether the home's filesystem has the links that generations are made of."""
    fits = filesystem.kind not in _NO_LINKS
    return Finding(
        "filesystem", filesystem.kind or "not known", "hard links", fits,
        None if fits else f"{root} is on {filesystem.kind}: export AIRPACK_HOME=DIRECTORY on ext4",
    )  # fmt: skip


def judge_clock(bundle: Bundle, now: datetime) -> Finding:
    """Whether this host's clock can be right: the bundle was built before it came here."""
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    if now >= parse_timestamp(bundle.created):
        return Finding("clock", found)
    return Finding(
        "clock", found, f"{bundle.created} or later",
        hint="set the clock: the bundle was built after what it says, and expiry cannot be judged",
    )  # fmt: skip


def judge_space(bundle: Bundle, variants: Sequence[Variant], home: Home) -> Finding:
    """Whether what the store lacks of ``variants`` fits its disk."""
    files = {f.digest: f for variant in variants for f in bundle.carried_files(variant)}
    missing = [f for f in files.values() if not has_blob(home, f.digest, f.size)]
    needed = space_for(missing, home)
    free = read_filesystem(nearest_existing(home.blobs)).free
    fits = free >= needed
    shared = sum(f.size for f in files.values()) - sum(f.size for f in missing)
    here = f" ({format_size(shared)} are in the store already)" if shared else ""
    return Finding(
        "space", f"{format_size(free)} free", f"{format_size(needed)}{here}", fits,
        None if fits else "airpack gc frees what no generation holds; or set AIRPACK_HOME",
    )  # fmt: skip


def space_for(files: Sequence[PayloadFile], home: Home) -> int:
    """The bytes that installing ``files`` takes, less what is here of them already."""
    return sum(file.size - room_of(home, file) for file in files) + SPACE_MARGIN


def _weights(bundle: Bundle, variant: Variant) -> int:
    """The bytes of the model that the engine opens, all parts of it where it is split."""
    files = bundle.variant_files(variant)
    return sum(file.size for file in files if file.path.endswith(".gguf"))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
