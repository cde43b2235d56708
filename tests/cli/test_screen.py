from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import AIRPACK, Host, Sender

EVERY_COMMAND = """
import sys, click
from packager.cli.main import airpack
def walk(command, path):
    ctx = command.make_context(path, ["--help"], resilient_parsing=True)
    print("=", path)
    print(command.get_help(ctx))
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            walk(command.get_command(ctx, name), f"{path} {name}")
walk(airpack, "airpack")
"""
# What a far host does not have, and what no isolated command may load.
FORBIDDEN = {
    "huggingface_hub", "httpx", "httpx2", "requests", "urllib.request", "http.client", "numpy",
    "torch", "safetensors", "gguf", "packager.connected", "packager.quantize",
}  # fmt: skip
LOADED = """
import atexit, sys
from pathlib import Path
from packager.cli.main import main
listing = Path(sys.argv.pop(1))
atexit.register(lambda: listing.write_text(" ".join(sys.modules)))
main()
"""
BARE = """
import sys
FORBIDDEN = {"huggingface_hub", "numpy", "gguf", "httpx2", "safetensors"}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from packager.cli.main import main
main()
"""


def test_every_command_has_the_common_flags_and_help() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND], capture_output=True, text=True, check=True
    )
    helps = dict(part.split("\n", 1) for part in done.stdout.split("= airpack")[1:])
    assert {" keys generate", " trust policy", " install", " completion"} <= helps.keys()
    assert len(helps) >= 26
    for flag in (
        "-h, --help", "--version", "--json", "--progress", "-q, --quiet", "-v, --verbose",
        "--no-input", "--yes",
    ):  # fmt: skip
        assert [path for path, text in helps.items() if flag not in text] == []


@pytest.mark.parametrize("words", [["--version"], ["trust", "list", "--version"]])
def test_the_version_is_one_line(host: Host, words: list[str]) -> None:
    done = host.airpack(*words)
    assert done.code == 0
    assert done.out.startswith("airpack ")
    assert done.out.count("\n") == 1


def test_no_command_at_all_gets_the_help_on_stderr(host: Host) -> None:
    done = host.airpack()
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Usage: airpack")


@pytest.mark.parametrize("command", ["verify", "install"])
def test_the_isolated_commands_load_no_client_and_no_arrays(
    host: Host, sender: Sender, tmp_path: Path, command: str
) -> None:
    listing = tmp_path / "modules"
    words = [listing, command, sender.first, "--pub", sender.pub]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], env=host.environment, capture_output=True
    )
    assert done.returncode == 0
    modules = set(listing.read_text().split())
    assert "packager.trust.verify" in modules
    assert modules & FORBIDDEN == set()


def test_a_host_without_the_builders_packages_has_help_and_a_clear_error(host: Host) -> None:
    def airpack(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BARE, *words]
        return subprocess.run(command, env=host.environment, capture_output=True, text=True)

    assert "build" in airpack("--help").stdout
    assert airpack("list").returncode == 0
    build = airpack("build", "demo.yaml", "-o", "out")
    assert build.returncode == 1
    assert build.stderr.startswith("error: this command needs ")
    assert "try: " in build.stderr
    assert "Traceback" not in build.stderr


def test_progress_as_json_is_json_lines_on_stderr(host: Host, sender: Sender) -> None:
    done = host.airpack("verify", sender.first, "--pub", sender.pub, "--progress", "json")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines[0]["done"] == 0
    assert lines[-1]["done"] == lines[-1]["total"]
    assert {line["event"] for line in lines} == {"progress"}
    assert done.out.startswith("ok: demo-1.0.0")


@pytest.mark.parametrize("words", ["list", "run other --json", "nonsense"])
def test_a_closed_pipe_is_quiet(installed: Host, words: str) -> None:
    command = f"{' '.join(AIRPACK)} {words} 2>errors | true; cat errors"
    done = subprocess.run(
        ["sh", "-c", command],
        env=installed.environment,
        cwd=installed.home,
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert all(line.startswith(("error: ", "try: ")) for line in said)


def test_ctrl_c_ends_with_130_and_one_line(host: Host, tmp_path: Path) -> None:
    fifo = tmp_path / "passphrase"
    os.mkfifo(fifo)
    command = [*AIRPACK, "keys", "generate", str(tmp_path / "k"), "--passphrase-file", str(fifo)]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        fifo.open("wb"),
    ):  # opens when the command has opened the other end
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (out, err) == ("", "cancelled\n")
    assert [path.name for path in tmp_path.iterdir()] == ["passphrase"]


def test_quiet_leaves_the_result_and_verbose_adds_to_stderr(installed: Host) -> None:
    plain, quiet, verbose = (installed.airpack("list", *flag) for flag in ([], ["-q"], ["-v"]))
    assert plain.out == quiet.out == verbose.out
    assert plain.err == quiet.err == ""
    assert str(installed.home / "models/demo/2") in verbose.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(host: Host, shell: str) -> None:
    script = host.airpack("completion", shell).out
    assert f"_AIRPACK_COMPLETE={shell}_complete" in script


def test_bash_takes_the_completion_and_is_offered_commands(host: Host) -> None:
    script = f'eval "$({" ".join(AIRPACK)} completion bash)"; complete -p airpack'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("airpack\n")
    asking = {"_AIRPACK_COMPLETE": "bash_complete", "COMP_WORDS": "airpack li", "COMP_CWORD": "1"}
    assert Host(host.home, asking).airpack().out == "plain,list\n"
