"""Installs on a disk that is full, or nearly: what fits is kept, and goes for the room needed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from support.hosts import Host, in_small_disk
from support.resuming import SIZE, interrupt_install

FULL = """
import sys
from pathlib import Path
from support.hosts import Host
from support.watching import Watching
from packager.errors import AirpackError
from packager.isolated.lifecycle import free_space
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
from support.hosts import NOW
home, bundle, fill = Home(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[1]).parent / "fill"
host = Host(home, read_keyring(home))
class Filling(Watching):
    def task(self, label, total, **options):
        if label == "installing":
            with open(fill, "wb", buffering=0) as stream:
                try:
                    while stream.write(bytes(4096)): pass
                except OSError: pass
                stream.truncate(stream.tell() - 2_000_000)
        return super().task(label, total, **options)
before = host.state()
def full():
    try:
        host.install(bundle, progress=Filling())
    except AirpackError as error:
        print(type(error).__name__, error.message, "--", error.hint)
    print(host.state() == before, host.current())
full()
print("freed", free_space(home, now=NOW, operator="tester") > 1_900_000, *host.partials())
fill.unlink()
full()
fill.unlink()
watching = Watching()
host.install(bundle, progress=watching)
print(watching.notes[0], host.current())
"""


def test_99_a_full_disk_keeps_what_fits_gives_it_back_if_asked_and_else_goes_on_there(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    script = (
        f'cp -a "{running.home.root}" "$PLACE/home" && {sys.executable} -c \'{FULL}\' '
        f'"$PLACE/home" "{bundle}"'
    )
    done = in_small_disk(place, "16m", script)
    assert done.stderr == ""
    first, same, freed, second, again, last = done.stdout.splitlines()
    for line in (first, second):
        assert re.match(
            rf"NoSpaceError {place}/home/partial/tiny/\w+: no space left -- free some space, then "
            r"run it again; the next install goes on from the [\d.]+ MiB that are here; airpack gc "
            "frees them$",
            line,
        )
    assert (same, again) == ("True 1", "True 1")
    assert freed == "freed True"
    assert re.match(r"continuing: [\d.]+ MiB of 3\.\d+ MiB are here already 2$", last)


ROOM = """
import sys
from pathlib import Path
from support.hosts import Host
from packager.isolated.trust_store import read_keyring
from packager.store.home import Home
home = Home(Path(sys.argv[1]))
with open(home.root.parent / "fill", "wb") as stream:
    stream.write(bytes(int(sys.argv[3])))
print(Host(home, read_keyring(home)).install(Path(sys.argv[2])).path.name)
"""


def test_the_room_that_is_needed_is_less_what_is_here_already(
    tmp_path: Path, running: Host, bundle: Path
) -> None:
    interrupt_install(running, bundle, at=SIZE * 9 // 10)
    place = tmp_path / "disk"
    place.mkdir()
    free = (9 << 20) + SIZE // 4  # with the margin too little for all files, enough for the rest
    used = sum(path.stat().st_blocks * 512 for path in running.home.root.rglob("*"))
    script = (
        f'cp -a --sparse=always "{running.home.root}" "$PLACE/home" && '
        f'{sys.executable} -c \'{ROOM}\' "$PLACE/home" "{bundle}" {(24 << 20) - used - free}'
    )
    done = in_small_disk(place, "24m", script)
    assert (done.stdout, done.stderr) == ("2\n", "")
