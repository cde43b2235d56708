"""What travels beside the models."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from support.watching import Watching
from support.workplace import PYTHON, Workplace

from packager.connected.cache import Cache
from packager.connected.lock import read_recipe
from packager.connected.provisions.carried import (
    Provisions,
    check_targets,
    provide,
    provisions_at_hand,
)
from packager.errors import UsageError
from packager.format.relpath import check_medium_name
from packager.format.target import Target


def test_everything_that_a_bare_host_needs_is_there(provisions: Provisions) -> None:
    names = [name for name, _ in provisions.files]

    for name in names:
        check_medium_name(name)
    others = [name for name in names if not name.endswith(".whl")]
    assert others == [
        "FORMAT.md",
        "LICENSE.engine.txt",
        "LICENSE.libgomp.txt",
        "libgomp.so.1",
        f"requirements-{PYTHON}.txt",
        "setup.sh",
    ]
    wheels = {name.split("-")[0] for name in names if name.endswith(".whl")}
    assert {"airpack", "click", "cryptography", "cffi", "pip", "tqdm", "xllamacpp"} <= wheels
    assert all(path.is_file() for _, path in provisions.files)


def test_requirements_name_each_wheel_once_by_its_own_digest(provisions: Provisions) -> None:
    files = dict(provisions.files)
    lines = files[f"requirements-{PYTHON}.txt"].read_text().splitlines()

    listed = {re.fullmatch(r".+ --hash=sha256:([0-9a-f]{64})", line)[1] for line in lines}  # type: ignore[index]
    wheels = [p for n, p in provisions.files if n.endswith(".whl") and not n.startswith("pip-")]
    sums = subprocess.run(["sha256sum", *wheels], capture_output=True, text=True, check=True).stdout
    assert listed == {line.split()[0] for line in sums.splitlines()}
    assert len(lines) == len(wheels)


def test_what_travels_without_its_notices_gets_them(provisions: Provisions) -> None:
    files = dict(provisions.files)
    engine = files["LICENSE.engine.txt"].read_text("ascii")
    for notice in ("The ggml authors", "Yuji Hirose", "Niels Lohmann", "BoringSSL"):
        assert notice in engine
    assert "Permission is hereby granted, free of charge" in engine
    assert "Apache License" in engine
    libgomp = files["LICENSE.libgomp.txt"].read_text("ascii")
    assert "GCC RUNTIME LIBRARY EXCEPTION" in libgomp
    assert "GNU GENERAL PUBLIC LICENSE" in libgomp


def test_every_other_wheel_holds_its_licence(provisions: Provisions) -> None:
    for name, path in provisions.files:
        if name.endswith(".whl"):
            with zipfile.ZipFile(path) as archive:
                inside = [entry.lower() for entry in archive.namelist()]
            assert any("licen" in entry or "copying" in entry for entry in inside), name


def test_second_time_nothing_is_fetched_and_leftovers_of_a_killed_process_go(
    workplace: Workplace, provisions: Provisions
) -> None:
    place = provisions.libraries.parent
    (place / ".tmp-half-downloaded").mkdir()
    (place / ".tmp-half-downloaded" / "x.whl").write_bytes(b"half")
    (place / "lib" / ".tmp-1-libgomp.so.1").write_bytes(b"half")
    watching = Watching()

    again = provide(read_recipe(workplace.recipe), workplace.cache, watching)

    assert again == provisions
    assert watching.notes == []
    assert list(place.rglob(".tmp-*")) == []


def test_108_two_platforms_in_one_bundle_are_refused() -> None:
    targets = [Target(f"linux_{m}", (PYTHON,), "2.28") for m in ("x86_64", "aarch64")]
    with pytest.raises(UsageError, match="linux_aarch64 and linux_x86_64"):
        check_targets(targets)
    check_targets([*targets[:1], Target("linux_x86_64", ("3.12",), "2.34")])


def test_the_texts_are_plain_ascii(provisions: Provisions) -> None:
    for name, path in provisions.files:
        if name.endswith((".txt", ".sh")):
            Path(path).read_text("ascii")


def test_they_are_at_hand_once_all_that_must_be_fetched_is_in_the_cache(
    workplace: Workplace, provisions: Provisions, tmp_path: Path
) -> None:
    recipe, watching = read_recipe(workplace.recipe), Watching()
    assert provisions_at_hand(recipe, Cache(tmp_path / "none"), watching) is None
    assert not (tmp_path / "none").exists()
    assert provisions_at_hand(recipe, workplace.cache, watching) == provisions
    assert watching.notes == []
    place = provisions.libraries.parent
    part = tmp_path / "part" / "setup" / place.name
    shutil.copytree(place, part)
    shutil.rmtree(part / "libgomp")
    assert provisions_at_hand(recipe, Cache(tmp_path / "part"), watching) is None
