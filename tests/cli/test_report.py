"""``airpack report``: what a person gets from a medium, and what is never written over."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.bundles import flip_bit

from .conftest import Host, Sender, snapshot


def test_a_host_that_trusts_nobody_gets_a_page_that_says_so(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    before = snapshot(sender.first)

    done = host.airpack("report", sender.first, "-o", page, "--json")

    assert done.code == 0
    assert done.document == {
        "ok": True,
        "path": str(page),
        "verified": False,
        "bundle": {"name": "demo", "version": "1.0.0", "sequence": 1},
        "signers": [sender.key_id],
        "custody": None,
    }
    assert done.err.startswith("warning: NOT VERIFIED")
    assert "<b>NOT VERIFIED</b>" in page.read_text("utf-8")
    assert snapshot(sender.first) == before


def test_with_a_key_the_page_says_who_signed(host: Host, sender: Sender, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    done = host.airpack("report", sender.first, "--pub", sender.pub, "-o", page)

    assert (done.code, done.out, done.err) == (0, f"wrote: {page}\n", "")
    text = page.read_text("utf-8")
    assert "<b>SIGNATURES VERIFIED</b>" in text
    assert sender.key_id in text
    assert "<th>asked</th><th>answer</th>" in text
    assert "medium 1 of 1" in text


def test_where_the_signature_does_not_hold_nothing_is_written(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    bad, page = shutil.copytree(sender.first, tmp_path / "bad"), tmp_path / "page.html"
    flip_bit(bad / "SHA256SUMS", 3)
    (bad / "spare.SHA256SUMS").unlink()

    done = host.airpack("report", bad, "--pub", sender.pub, "-o", page)

    assert done.code == 11
    assert not page.exists()
    assert not list(tmp_path.glob(".*html*"))


def test_an_index_that_the_sums_do_not_list_is_no_base_for_a_page(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    bad, page = shutil.copytree(sender.first, tmp_path / "bad"), tmp_path / "page.html"
    index = (bad / "bundle.json").read_bytes().replace(b'"sequence":1', b'"sequence":9')
    for name in ("bundle.json", "spare.bundle.json"):
        (bad / name).write_bytes(index)

    done = host.airpack("report", bad, "-o", page)

    assert done.code == 10
    assert "bundle.json: not the file that SHA256SUMS lists" in done.err
    assert not page.exists()


def test_a_report_may_be_written_anew_and_nothing_else_is_written_over(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    page, other, link = (tmp_path / name for name in ("page.html", "other.html", "link.html"))
    assert host.airpack("report", sender.first, "-o", page).code == 0
    first = page.read_bytes()
    other.write_text("<!DOCTYPE html>precious")
    link.symlink_to(page)

    again = host.airpack("report", sender.second, "-o", page)
    assert again.code == 0
    assert page.read_bytes() != first
    for place in (other, link):
        done = host.airpack("report", sender.first, "-o", place)
        assert done.code == 2
        assert done.err.startswith(f"error: {place}: exists, and is no report\ntry: ")
    assert other.read_text() == "<!DOCTYPE html>precious"
    assert link.is_symlink()


def test_it_is_not_put_into_the_bundle_where_it_would_be_a_stranger(
    host: Host, sender: Sender
) -> None:
    before = snapshot(sender.first)

    done = host.airpack("report", sender.first, "-o", sender.first / "report.html")

    assert done.code == 2
    assert "in the bundle itself" in done.err
    assert snapshot(sender.first) == before


def test_the_sheet_of_two_media_is_printed_as_text(
    host: Host, sender: Sender, tmp_path: Path
) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        shutil.copytree(sender.first, place)
    (places[0] / "payload.00002").unlink()
    (places[1] / "payload.00001").unlink()

    done = host.airpack("report", *places, "--pub", sender.pub, "--custody")

    assert done.code == 0
    assert "CHAIN OF CUSTODY" in done.out
    assert "medium 2 of 2" in done.out
    assert str(places[1]) in done.out
    assert done.out.count("date: ____") == 2


def test_somebody_has_to_say_what_for(host: Host, sender: Sender) -> None:
    done = host.airpack("report", sender.first)

    assert done.code == 2
    assert done.err.startswith("error: say where to: -o FILE.html, or --custody\ntry: ")
