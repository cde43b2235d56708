from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosts import child_env, in_small_disk

from packager.errors import HostError
from packager.store.home import Home, default_home

HOLD = """
import sys
from pathlib import Path
from packager.store.home import Home
with Home(Path(sys.argv[1])).changing():
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(home: Home) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root)],
        env=child_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_103_who_comes_second_is_told_who_holds_the_place(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "lock").write_text("4194304123\n")  # a longer number from long ago
    with hold(home) as process:
        with (
            pytest.raises(HostError, match=f"lock: another airpack, process {process.pid}, is"),
            home.changing(),
        ):
            pass
        process.communicate("")
    with home.changing():
        pass


def test_104_the_lock_of_a_dead_process_is_not_in_the_way(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with hold(home) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert str(process.pid) in (home.root / "lock").read_text()
    with home.changing():
        assert (home.root / "lock").read_text().split() == [str(os.getpid())]


def test_99_a_full_disk_does_not_keep_the_lock_from_who_would_free_space(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from packager.store.home import Home\n"
        "with Home(Path(sys.argv[1])).changing(): print('held')"
    )
    script = (
        f': >"$PLACE/lock"; cat /dev/zero >"$PLACE/fill"; {sys.executable} -c "{code}" "$PLACE"'
    )
    assert in_small_disk(tmp_path, "64k", script).stdout == "held\n"


def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file"), Home(tmp_path / "file" / "home").changing():
        pass


def test_the_home_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRPACK_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("AIRPACK_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    expected = Path("/var/lib/airpack") if os.geteuid() == 0 else tmp_path / "data" / "airpack"
    assert default_home() == expected
