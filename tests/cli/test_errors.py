from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import make_bundle, make_key

from packager.errors import HostError

from .conftest import Host, Sender, snapshot


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["verify"], 2),
        (["inspect", "nowhere"], 2),
        (["run", "demo"], 2),
        (["smoke", "other"], 2),
        (["serve", "demo", "--port", "99999"], 2),
        (["trust", "policy", "--threshold", "0"], 11),
        (["trust", "remove", "0123456789abcdef"], 11),
        (["rollback", "demo", "--to", "9"], 2),
    ],
)
def test_an_error_is_two_lines_and_one_document(
    installed: Host, words: list[str], code: int
) -> None:
    before = snapshot(installed.home)
    done = installed.airpack(*words, "--json")
    assert done.code == code
    assert set(done.document) == {"ok", "error", "exit_code", "try"}
    assert done.document["ok"] is False
    assert done.document["exit_code"] == code
    first, *rest = done.err.splitlines()
    assert first == f"error: {done.document['error']}"
    assert all(line.startswith("try: ") for line in rest)
    assert len(rest) <= 1
    assert snapshot(installed.home).keys() == before.keys()


def test_an_untrusted_signer_ends_with_11(host: Host, sender: Sender) -> None:
    done = host.airpack("verify", sender.first)
    assert done.code == 11
    assert done.out == ""
    assert "try: airpack trust add" in done.err


def test_16_a_lower_sequence_ends_with_18_and_keeps_what_is_current(
    installed: Host, sender: Sender
) -> None:
    installed.airpack("rollback", "demo", "--to", "2")
    before = installed.airpack("list").out
    done = installed.airpack("install", sender.first)
    assert done.code == 18
    assert "try: " in done.err
    assert installed.airpack("list").out == before


def test_no_space_for_the_output_ends_with_13(installed: Host) -> None:
    done = installed.airpack("list", before=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    assert done.code == 13
    assert done.err.startswith("error: standard output: no space left\n")


def test_39_a_name_with_an_escape_sequence_is_shown_not_obeyed(host: Host, tmp_path: Path) -> None:
    key = make_key(tmp_path / "k")
    bundle = make_bundle(tmp_path / "out", [key])
    (bundle / "evil\x1b[2J\u202e\nerror: all is well").touch()
    for command, lines in (("verify", 1), ("install", 0)):
        done = host.airpack(command, bundle, "--pub", tmp_path / "k.pub")
        assert done.code == 10
        assert "\x1b" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
        assert len(done.out.splitlines()) == lines
        assert [line.split(" ")[0] for line in done.err.splitlines()] == ["error:", "try:"]


@pytest.mark.parametrize("words", [["list"], ["gc"], ["trust", "list"], ["log"]])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, words: list[str]) -> None:
    home = tmp_path / "home"
    home.touch()
    done = Host(home).airpack(*words)
    assert done.code == 1
    assert done.err == f"error: {home}: not a directory\ntry: export AIRPACK_HOME=DIRECTORY\n"


def test_a_home_that_cannot_be_made_is_named(sender: Sender) -> None:
    done = Host(Path("/proc/airpack")).airpack("trust", "add", sender.pub)
    assert done.code == 1
    assert done.err.startswith("error: /proc/airpack")


def test_a_home_that_is_not_there_yet_is_empty_and_stays_away(host: Host) -> None:
    assert host.airpack("list").out == "nothing is installed\n"
    assert json.loads(host.airpack("list", "--json").out) == []
    assert not host.home.exists()


def test_uninstall_without_anybody_to_ask_does_what_it_was_told(installed: Host) -> None:
    assert installed.airpack("uninstall", "demo", "--generation", "1", "--no-input").code == 0
    assert [entry["generation"] for entry in installed.airpack("list", "--json").document] == [2]
    assert installed.airpack("uninstall", "demo").code == 0
    assert installed.airpack("list", "--json").document == []
    assert installed.airpack("gc", "--json").document["freed"] > 1_000_000


TOO_LARGE = """
import packager.cli.main
packager.cli.main.airpack.invoke = lambda _context: bytearray(1 << 62)
packager.cli.main.main()
"""


def test_a_host_without_memory_is_told_so() -> None:
    words = [sys.executable, "-c", TOO_LARGE, "list", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == HostError.exit_code
    assert done.stderr.startswith("error: this host gives no more memory\ntry: ")
    assert json.loads(done.stdout)["exit_code"] == HostError.exit_code
