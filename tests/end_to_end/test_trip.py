"""From a real HTTP hub to a model that answers where there is no network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from end_to_end.conftest import DEMO, REPOSITORY, Carried, Host
from support.hub_server import HubServer
from support.sandbox import no_network

from packager.format.digest import Digest
from packager.format.lock import HubCommit, parse_lock

# What the connected side has and the isolated side must not need.
BUILD_PACKAGES = ("huggingface_hub", "safetensors", "numpy", "gguf", "httpx", "requests", "torch")


def test_the_lock_pins_the_commit_and_only_wanted_files_were_fetched(
    hub: HubServer, carried: Carried
) -> None:
    lock = parse_lock((carried.medium / "lock.json").read_bytes())
    assert lock.source == HubCommit(REPOSITORY, hub.revision(REPOSITORY))
    asked = {r.file for r in hub.requests if r.file and f"/{REPOSITORY}/" in r.path}
    assert {"config.json"} < asked <= {file.path for file in lock.files}


def test_the_isolated_host_has_none_of_the_build_packages(airpack_from_the_medium: Path) -> None:
    site_packages = next(airpack_from_the_medium.parents[1].glob("lib/python3*/site-packages"))
    installed = {path.name for path in site_packages.iterdir()}
    assert {"packager", "xllamacpp"} <= installed
    assert not installed & set(BUILD_PACKAGES)
    assert "pip" not in installed


def test_the_bundle_becomes_a_model_that_gives_the_golden_tokens(
    carried: Carried, isolated: Host
) -> None:
    isolated.say("trust", "add", carried.key)
    assert isolated.ask("verify", carried.medium)["ok"]

    installed = isolated.ask("install", carried.medium)

    golden = carried.index.variants[0].golden
    assert golden is not None
    smoke = installed["smoke"]["variants"]["q4_k_m"]
    assert smoke["ok"]
    assert smoke["tokens_match"]
    assert smoke["actual"] == golden.answers[0].text
    assert smoke["egress"] == {"namespace": bool(no_network()), "attempts": []}
    answer = isolated.say("run", "tiny-kjv", "In the beginning", "--max-tokens", "16")
    assert answer.removesuffix("\n") == golden.answers[0].text


def test_what_was_carried_as_it_is_arrives_as_it_was(carried: Carried, isolated: Host) -> None:
    installed = isolated.ask("install", carried.medium, "--pub", carried.key)
    arrived = Path(installed["path"]) / "original"
    sent = {path.name: path.read_bytes() for path in (DEMO / "tiny-kjv").iterdir()}
    installed = {path.name: path.read_bytes() for path in arrived.iterdir()}
    assert installed.pop("model.sig")
    assert installed == sent


def test_a_later_release_becomes_current_and_the_earlier_one_is_a_rollback_away(
    carried: Carried, carried_later: Carried, isolated: Host
) -> None:
    isolated.say("trust", "add", carried.key)
    first = isolated.ask("install", carried.medium)
    second = isolated.ask("install", carried_later.medium)
    assert [first["generation"], second["generation"]] == [1, 2]
    current = [entry["current"] for entry in isolated.ask("list")]
    assert current == [False, True]

    isolated.say("rollback", "tiny-kjv")
    assert [entry["current"] for entry in isolated.ask("list")] == [True, False]
    assert isolated.ask("smoke", "tiny-kjv")["ok"]
    isolated.say("install", carried.medium, code=18)
    assert [entry["current"] for entry in isolated.ask("list")] == [True, False]

    isolated.say("uninstall", "tiny-kjv", "--yes")
    assert isolated.ask("list") == []
    assert isolated.ask("gc")["freed"] > 0
    assert [p for p in (isolated.folder / "home" / "blobs").rglob("*") if p.is_file()] == []
    assert isolated.ask("log", "--verify")["ok"]


def test_the_stock_commands_pass_as_they_are_printed(carried: Carried, tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    shutil.copytree(carried.medium, medium)
    shutil.copy(carried.key, medium / "KEY.pub")
    printed = (medium / "READ-ME-FIRST.txt").read_text("ascii")
    commands = re.findall(r"^    ((?:openssl|sha256sum|cat) .*)$", printed, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["openssl", "sha256sum", "cat"]
    host = Host((), {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, medium, no_network())

    signature, sums, unpack = (host.run("sh", "-c", command).stdout for command in commands)

    assert signature == "Verified OK\n"
    assert len(sums.splitlines()) == len((medium / "SHA256SUMS").read_text().splitlines())
    assert all(line.endswith(": OK") for line in sums.splitlines())
    assert unpack == ""
    for file in carried.index.files:
        assert Digest.of((medium / file.path).read_bytes()) == file.digest


def test_a_flipped_bit_on_the_medium_is_named_by_stock_commands_and_by_airpack(
    carried: Carried, isolated: Host, tmp_path: Path
) -> None:
    medium = tmp_path / "medium"
    shutil.copytree(carried.medium, medium)
    model = next(file for file in carried.index.files if file.path.endswith(".gguf"))
    with open(medium / "payload.00001", "r+b") as volume:
        volume.seek(model.offset + model.size // 2)
        byte = volume.read(1)
        volume.seek(-1, 1)
        volume.write(bytes([byte[0] ^ 1]))

    stock = Host((), {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, medium)
    assert "payload.00001: FAILED" in stock.run("sha256sum", "-c", "SHA256SUMS", code=1).stdout
    found = isolated.ask("verify", medium, "--pub", carried.key, code=10)
    assert [entry["files"] for entry in found["damage"]] == [[model.path]]
    isolated.say("install", medium, "--pub", carried.key, code=10)
    assert isolated.ask("list") == []
