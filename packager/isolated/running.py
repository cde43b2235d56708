"""Which installed models run now, told by the kernel: no file of ours says so, or could be stale.

An engine maps the model's file into its memory, so proc(5)'s ``maps`` names the generation that
it is of. Only what this account may look at is seen: its own processes, or for root all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packager.store.home import Home

_PROC = Path("/proc")
_STATUS_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_SOCKET = re.compile(r"socket:\[(\d+)\]\Z")
_LISTEN = "0A"  # of proc(5)'s net/tcp
_COMMANDS = ("serve", "run", "smoke", "install")


@dataclass(frozen=True)
class RunningModel:
    """An engine with a model open.

    ``command`` is what started it, ``memory`` its resident bytes, ``seconds`` its age, ``port``
    where that answers others, if it does.
    """

    pid: int
    name: str
    generation: int
    variant: str
    command: str
    memory: int
    seconds: int
    port: int | None


def running_models(home: Home, proc: Path = _PROC) -> tuple[RunningModel, ...]:
    """The engines that have a model of ``home`` open, by process id."""
    found: list[RunningModel] = []
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            # A process that ends meanwhile, or is somebody else's.
            with suppress(OSError, ValueError):
                found += _models_of(home, entry)
    return tuple(sorted(found, key=lambda model: (model.name, model.pid)))


def _models_of(home: Home, process: Path) -> Iterator[RunningModel]:
    places = _mapped(home, process)
    if not places:
        return
    memory = _STATUS_RSS.search((process / "status").read_text("utf-8", "replace"))
    command = _command(process)
    for name, generation, variant in sorted(places):
        yield RunningModel(
            pid=int(process.name),
            name=name,
            generation=generation,
            variant=variant,
            command=command,
            memory=int(memory[1]) << 10 if memory else 0,
            seconds=_age(process),
            port=_port(process.parent / _stat(process)[1]) if command == "serve" else None,
        )


def _mapped(home: Home, process: Path) -> set[tuple[str, int, str]]:
    """Model, generation and variant of each installed file that the process has mapped."""
    prefix = f"{home.models.resolve()}/"
    places = set()
    with (process / "maps").open("rb") as maps:
        for line in maps:
            path = os.fsdecode(b"".join(line.rstrip(b"\n").split(None, 5)[5:]))
            parts = path.removeprefix(prefix).split("/")
            # At its beginning: below a directory of their own, others may have one called so.
            if path.startswith(prefix) and len(parts) > 3 and parts[1].isdecimal():
                places.add((parts[0], int(parts[1]), parts[2]))
    return places


def _command(process: Path) -> str:
    """The command of airpack's that the engine works for: its parent's first word that is one."""
    parent = _stat(process)[1]
    with suppress(OSError):
        words = (process.parent / parent / "cmdline").read_bytes().split(b"\0")
        for word in words:
            if os.fsdecode(word) in _COMMANDS:
                return os.fsdecode(word)
    return "unknown"


def _stat(process: Path) -> list[str]:
    """The fields behind the name in proc(5)'s ``stat``: state, parent, and so on."""
    return (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _age(process: Path) -> int:
    started = int(_stat(process)[19]) / os.sysconf("SC_CLK_TCK")
    return max(0, round(time.clock_gettime(time.CLOCK_BOOTTIME) - started))


def _port(process: Path) -> int | None:
    """The lowest TCP port that the process listens on."""
    sockets = set()
    for entry in (process / "fd").iterdir():
        with suppress(OSError):
            if match := _SOCKET.match(str(entry.readlink())):
                sockets.add(match[1])
    ports = []
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (process / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in sockets:
                    ports.append(int(fields[1].rpartition(":")[2], 16))
    return min(ports, default=None)
