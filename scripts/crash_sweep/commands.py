"""airpack's command line, run in a process of its own: as it is, or under strace."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 120
_KEPT = ("PATH", "HOME", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, negative for a signal, and what it said."""

    code: int
    text: str

    def faults(self) -> list[str]:
        """What no command may do, however it ends."""
        found = []
        if "Traceback" in self.text or "a fault in airpack itself" in self.text:
            found.append(f"it broke: {self.text[-400:]}")
        if self.code > 0 and "error: " not in self.text:
            found.append(f"exit code {self.code} without an error: {self.text!r}")
        return found


def environment(home: Path) -> dict[str, str]:
    """What decides how often which system call is made is the same each time."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed, "AIRPACK_HOME": str(home)}


def words_of(command: Sequence[str]) -> list[str]:
    """The whole command line of an airpack ``command``."""
    return [sys.executable, "-m", "packager", *command]


def run(home: Path, command: Sequence[str]) -> Done:
    """Run a command in a fork of this process, which has loaded the modules already."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os._exit(_be(home, command, output.fileno()))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return Done(os.waitstatus_to_exitcode(status), output.read().decode("utf-8", "replace"))


def _be(home: Path, command: Sequence[str], output: int) -> int:
    """Do as ``airpack`` does with ``command``; returns the exit code."""
    from packager.cli.main import main

    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment(home))
    sys.argv = ["airpack", *command]
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    try:
        main()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0
    except BaseException:  # noqa: BLE001  # nothing of the parent may run here
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_traced(home: Path, command: Sequence[str], strace: Sequence[str]) -> Done:
    """Run a command with strace's ``strace`` options; killed with it if it takes too long."""
    done = subprocess.run(
        ["strace", "-f", "-q", *strace, *words_of(command)],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"))
