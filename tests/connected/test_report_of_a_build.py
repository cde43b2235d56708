"""The report that a build writes into the bundle: signed with it, and as precious as the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.bundles import flip_bit
from support.workplace import Workplace

from packager.format.digest import Digest
from packager.format.sums import parse_sums

BEGINNING = "Where it comes from, and its licence"


def airpack(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def facts(page: Path) -> str:
    """The part of a report that does not depend on who checked it, and when, and where."""
    text = page.read_text("utf-8")
    return text[text.index(BEGINNING) : text.index('<div class="sheet">')]


def test_the_sums_list_the_report_and_there_is_a_spare_copy(built: Path) -> None:
    data = (built / "report.html").read_bytes()

    assert parse_sums((built / "SHA256SUMS").read_bytes())["report.html"] == Digest.of(data)
    assert (built / "spare.report.html").read_bytes() == data


def test_who_asks_at_the_far_end_is_told_the_same(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    page, pub = tmp_path / "page.html", workplace.recipe.with_name("team.key.pub")

    done = airpack("report", built, "--pub", pub, "-o", page)

    assert (done.returncode, done.stderr) == (0, "")
    assert facts(page) == facts(built / "report.html")
    text = page.read_text("utf-8")
    assert workplace.key.public.spoken_fingerprint in text
    assert workplace.key.public.spoken_fingerprint in (built / "report.html").read_text("utf-8")
    assert re.search(r"q4_k_m</th><td>converted</td><td>none</td>", text)


def test_what_the_provenance_said_is_left_out_where_no_copy_is_good(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    bad, page = tmp_path / "bad", tmp_path / "page.html"
    shutil.copytree(built, bad, copy_function=shutil.os.link)
    for name in ("provenance.json", "spare.provenance.json"):
        (bad / name).unlink()
        (bad / name).write_bytes(b"{}")

    done = airpack("report", bad, "--pub", workplace.recipe.with_name("team.key.pub"), "-o", page)

    assert done.returncode == 0
    assert "provenance.json: no copy here is as the sums have it" in done.stderr
    assert "Not known: there is no provenance.json to read it from." in page.read_text("utf-8")


def test_a_damaged_report_is_found_and_put_back_from_its_spare_copy(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    bad, pub = tmp_path / "bad", workplace.recipe.with_name("team.key.pub")
    shutil.copytree(built, bad)
    flip_bit(bad / "report.html", 500)

    found = airpack("verify", bad, "--pub", pub)
    assert (found.returncode, "report.html" in found.stdout) == (10, True)
    assert airpack("repair", bad, "--pub", pub, "--in-place").returncode == 0

    assert (bad / "report.html").read_bytes() == (built / "report.html").read_bytes()
    assert airpack("verify", bad, "--pub", pub).returncode == 0
