"""Which system calls of a command change a file of the home, and how strace is to hit each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Whatever changes a file, its name or what the disk has of it; openat where it makes a file.
CHANGING = (
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "splice",
    "copy_file_range", "fallocate", "truncate", "ftruncate", "fsync", "fdatasync",
    "sync_file_range", "syncfs", "msync", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "mknod", "mknodat",
    "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
    "utimensat", "setxattr", "fsetxattr", "open", "openat", "openat2", "creat",
)  # fmt: skip
_OPENING = frozenset({"open", "openat", "openat2"})
_LINE = re.compile(r"(\w+)\((.*)$")
_PLACE = r'[<"]{}(/[^>"]*|)[>"]'


@dataclass(frozen=True, order=True)
class Call:
    """The ``number``-th ``name`` of one thread, which changes ``place``, a path in the home.

    ``on_path`` is which of that thread's ``name`` on the path ``place`` it is. ``alone``: no
    other thread comes as far, so that its number says which call is meant.
    """

    name: str
    number: int
    place: str
    on_path: int
    alone: bool

    def aims(self, home: Path) -> list[tuple[str, list[str]]]:
        """How strace can be told to hit this call: its ``when``, and what leaves others alone.

        Best first. Another thread's call of the same number is hit as well, so that those two
        are told apart by their paths; a path with a process's number in it is not known before.
        """
        by_number: tuple[str, list[str]] = (f"when={self.number}", [])
        by_path = (f"when={self.on_path}", ["-P", str(home / self.place)])
        if _stem(self.place) != self.place:
            return [by_number]
        return [by_number, by_path] if self.alone else [by_path]


def trace_options(record: Path, names: Iterable[str] = CHANGING) -> list[str]:
    """strace's options that write every call, a record for each thread."""
    return ["-ff", "-y", "-s", "32", "-o", str(record), "-e", f"trace={','.join(names)}"]


def read_calls(record: Path, home: Path) -> list[Call]:
    """Every call that changed the home, in the order of the threads, and in theirs."""
    threads = [list(_lines(path)) for path in _records(record)]
    counts = [Counter(name for name, _ in lines) for lines in threads]
    found: list[Call] = []
    for thread, lines in enumerate(threads):
        others = counts[:thread] + counts[thread + 1 :]
        for name, number, place, on_path in _changes(lines, home):
            alone = all(number > count[name] for count in others)
            found.append(Call(name, number, place, on_path, alone))
    return found


def _changes(lines: Iterable[tuple[str, str]], home: Path) -> Iterator[tuple[str, int, str, int]]:
    numbers: Counter[str] = Counter()
    on_paths: Counter[tuple[str, str]] = Counter()
    for name, rest in lines:
        numbers[name] += 1
        places = places_of(rest, home)
        on_paths.update((name, place) for place in {*places})
        if places and (name not in _OPENING or "O_CREAT" in rest or "O_TRUNC" in rest):
            yield name, numbers[name], places[-1], on_paths[name, places[-1]]


def places_of(rest: str, home: Path) -> list[str]:
    """The paths in the home that a call names; ``.`` is the home itself."""
    found = re.findall(_PLACE.format(re.escape(str(home))), rest)
    return [path.strip("/") or "." for path in found]


def _records(record: Path) -> list[Path]:
    """The records of the threads, the first one's first."""
    found = record.parent.glob(f"{record.name}.*")
    return sorted(found, key=lambda path: int(path.suffix[1:]))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if match := _LINE.match(line):
            yield match[1], match[2]


@dataclass(frozen=True)
class Landed:
    """Where strace hit: the calls that were injected, or the last ones of a killed process."""

    hits: frozenset[tuple[str, str]]

    def on(self, call: Call) -> bool:
        """Whether that call was hit, or one of its name on the same place."""
        return any(n == call.name and _stem(p) == _stem(call.place) for n, p in self.hits)


def read_landing(record: Path, home: Path) -> Landed:
    """Where the injection hit, in a record of the calls of one name."""
    hits = set()
    for path in _records(record):
        text = path.read_text("utf-8", errors="replace")
        lines = [(match[1], match[2]) for match in map(_LINE.match, text.splitlines()) if match]
        hit = [line for line in lines if "(INJECTED)" in line[1]]
        if "killed by SIGKILL" in text:
            hit += lines[-1:]
        hits |= {(name, place) for name, rest in hit for place in places_of(rest, home)[-1:]}
    return Landed(frozenset(hits))


def _stem(place: str) -> str:
    """The place, whatever the process's number is in it."""
    return re.sub(r"\.tmp-\d+-", ".tmp-", place)
