from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundles import flip_bit

from .conftest import Host, Sender

SMOKE = {
    "ok", "variant", "tokens_match", "expected", "actual", "perplexity", "perplexity_expected",
    "tokens_per_second", "egress",
}  # fmt: skip


def test_a_first_contact_installs_with_a_key_named_for_the_run(host: Host, sender: Sender) -> None:
    done = host.airpack("install", sender.first, "--pub", sender.pub, "--json")
    document = done.document
    assert done.code == 0
    assert set(document) == {
        "ok", "name", "version", "sequence", "generation", "variants", "path", "smoke", "receipt",
    }  # fmt: skip
    assert set(document["smoke"]) == {*SMOKE, "variants"}
    assert set(document["smoke"]["variants"]["q4_k_m"]) == SMOKE
    assert document["variants"] == ["q4_k_m"]
    assert Path(document["receipt"]).is_file()
    assert Path(document["receipt"]).parent == Path(document["path"])


def test_verify_says_what_is_there(host: Host, sender: Sender) -> None:
    done = host.airpack("verify", sender.first, "--pub", sender.pub, "--json")
    assert done.code == 0
    assert done.err == ""
    assert done.document["bundle"] == {"name": "demo", "version": "1.0.0", "sequence": 1}
    assert done.document["signers"] == [sender.key_id]
    assert [set(volume) for volume in done.document["volumes"]] == [{"name", "medium", "state"}] * 2
    assert {volume["state"] for volume in done.document["volumes"]} == {"good"}
    assert done.document["damage"] == []
    assert done.document["repairable"] is False


def test_verify_names_the_damaged_chunk_and_ends_with_10(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    bad = shutil.copytree(sender.first, tmp_path / "bad")
    flip_bit(bad / "payload.00002", 70_000)
    done = host.airpack("verify", bad, "--pub", sender.pub, "--json")
    assert done.code == 10
    assert done.document["ok"] is False
    (damage,) = done.document["damage"]
    assert damage == {
        "volume": "payload.00002",
        "medium": str(bad),
        "chunk": 17,
        "offset": 65536,
        "size": 65536,
        "files": ["models/demo/q4_k_m/demo.gguf"],
    }
    assert done.err.startswith("error: demo-1.0.0: damaged in 1 place\ntry: ")
    text = host.airpack("verify", bad, "--pub", sender.pub)
    assert text.code == 10
    assert text.out == (
        f"damaged: {bad}/payload.00002 chunk 17, bytes 65536 to 131072: "
        "models/demo/q4_k_m/demo.gguf\n"
    )


def test_a_missing_volume_ends_with_12(host: Host, sender: Sender, tmp_path: Path) -> None:
    bad = shutil.copytree(sender.first, tmp_path / "bad")
    (bad / "payload.00001").unlink()
    done = host.airpack("verify", bad, "--pub", sender.pub, "--json")
    assert done.code == 12
    assert done.document["volumes"][0] == {
        "name": "payload.00001",
        "medium": None,
        "state": "missing",
    }
    assert done.err.startswith("error: demo-1.0.0: 1 file missing\n")


def test_list_gives_every_generation_in_bytes_and_in_a_table(installed: Host) -> None:
    first, second = installed.airpack("list", "--json").document
    assert set(first) == {
        "name", "version", "sequence", "generation", "current", "variants", "path", "size",
    }  # fmt: skip
    assert (first["generation"], first["current"]) == (1, False)
    assert (second["generation"], second["current"]) == (2, True)
    assert isinstance(second["size"], int)
    heading, *rows = installed.airpack("list").out.splitlines()
    column = heading.index("GENERATION")
    assert [row[column:].split("  ")[0].strip() for row in rows] == ["1", "2 current"]


def test_smoke_repeats_the_build(installed: Host) -> None:
    done = installed.airpack("smoke", "demo", "--json")
    assert done.code == 0
    assert set(done.document) == SMOKE
    assert set(done.document["egress"]) == {"namespace", "attempts"}
    assert done.document["expected"] == done.document["actual"]


def test_a_model_that_answers_otherwise_ends_with_15_and_one_document(installed: Host) -> None:
    model = installed.home / "models/demo/2/q4_k_m/demo.gguf"
    data = bytearray(model.read_bytes())
    data[-300_000:] = bytes(300_000)
    model.unlink()
    model.write_bytes(data)
    done = installed.airpack("smoke", "demo", "--json")
    assert done.code == 15
    assert done.document["ok"] is False
    assert "error: demo" in done.err
    assert "NaN" not in done.out


@pytest.mark.parametrize("words", [["inspect"], ["verify", "--pub"], ["log"], ["trust", "list"]])
def test_the_other_results_are_one_json_document(
    installed: Host, sender: Sender, words: list[str]
) -> None:
    needed = {"inspect": [sender.first], "verify": [sender.pub, sender.first]}
    done = installed.airpack(*words, *needed.get(words[0], []), "--json")
    assert done.code == 0
    assert done.document
    assert done.err == ""
