"""``airpack scrub``, and what damage does to the commands beside it."""

from __future__ import annotations

from pathlib import Path

from support.bundles import flip_bit

from .conftest import Host, Sender


def model_of(host: Host, number: int) -> Path:
    return next((host.home / "models" / "demo" / str(number)).rglob("*.gguf"))


def test_53_damage_exits_10_names_the_file_and_the_command_that_mends_it(
    installed: Host, sender: Sender
) -> None:
    model = model_of(installed, 2)
    flip_bit(model, -100)

    done = installed.airpack("scrub")

    assert done.code == 10
    assert f"damaged: demo generation 2, q4_k_m: {model}: other bytes than were" in done.out
    assert "try: airpack scrub --repair BUNDLE" in done.err

    mended = installed.airpack("scrub", "--repair", sender.second, "--json")
    assert mended.code == 0, mended.err
    assert {file["path"] for file in mended.document["mended"]} >= {str(model)}
    assert installed.airpack("smoke", "demo").code == 0


def test_what_is_whole_is_said_so(installed: Host) -> None:
    done = installed.airpack("scrub", "demo")
    assert (done.code, done.out[:4]) == (0, "ok: ")


def test_a_damaged_old_generation_stops_no_command_for_the_others(installed: Host) -> None:
    flip_bit(installed.home / "models" / "demo" / "1" / "bundle.json", 100)

    listed = installed.airpack("list", "--json")
    assert listed.code == 0
    assert [g["generation"] for g in listed.document] == [2]
    assert "demo/1: its evidence is damaged" in listed.err
    assert installed.airpack("smoke", "demo").code == 0
    refused = installed.airpack("rollback", "demo")
    assert refused.code == 10
    assert "try: airpack scrub demo --repair BUNDLE" in refused.err
    assert installed.airpack("uninstall", "demo", "--generation", "1", "--yes").code == 0
    assert installed.airpack("list").err == ""
