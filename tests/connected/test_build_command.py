"""``airpack build`` as a person runs it: what it says beforehand, and refuses at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.disks import on_fat, read_only
from support.hosts import child_env, in_small_disk
from support.workplace import RECIPE, Workplace

AIRPACK = (sys.executable, "-m", "packager")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def airpack(cache: Path, *words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*AIRPACK, *map(str, words)],
        env={**child_env(), "AIRPACK_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sizes(bundle: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in bundle.iterdir()}


def test_a_dry_run_says_what_media_need_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    words = ("build", recipe, "-o", out, "--dry-run", "--parity", 2)
    said = document(airpack(cache, *words, "--json"))

    free = os.statvfs(tmp_path)
    assert said["exact"] is True
    assert said["held"] == {"files": 0, "size": 0}
    assert (said["volumes"]["count"], said["volumes"]["parity"]) == (20, 2)
    assert said["small_size"] + said["volumes"]["largest"] == said["least_medium"]
    assert said["size"] > said["variants_size"] + said["small_size"]
    assert said["media"] == [{"count": 1, "capacity": 10**9}]
    assert 0.5 < said["free"] / (free.f_bavail * free.f_frsize) < 2
    text = airpack(cache, *words).stdout
    assert "the bundle takes about 1" in text
    assert ": 20 volumes of up to " in text
    assert "it fits one medium of 1 GB" in text
    assert not out.exists()
    assert not cache.exists()


def test_a_dry_run_warns_where_the_disk_will_probably_be_too_small(
    recipe: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = map(str, [*AIRPACK, "build", recipe, "-o", disk / "out", "--dry-run"])
    done = in_small_disk(disk, "40m", f'{shlex.join(words)}; ls "$PLACE"')

    assert f"warning: {disk}/out: about 1" in done.stderr
    assert "MiB needed, 40 MiB free" in done.stderr
    assert done.stdout.endswith("\n40 MiB free there\n")


def test_the_result_says_what_media_need_and_what_stayed_at_home(
    workplace: Workplace, built: Path, recipe: Path, tmp_path: Path
) -> None:
    cache = workplace.cache.root
    words = ("build", recipe, "-o", tmp_path, "--base", built, "--json", "--volume-size", "20MiB")
    dry = document(airpack(cache, *words, "--dry-run"))
    said = document(airpack(cache, *words))

    there = sizes(Path(said["path"]))
    volumes = {name: size for name, size in there.items() if name.startswith("payload.")}
    assert said["size"] == sum(there.values())
    assert said["small_size"] == said["size"] - sum(volumes.values())
    assert said["volumes"] == {
        "count": len(volumes), "parity": 0, "largest": max(volumes.values())
    }  # fmt: skip
    assert said["payload_size"] == sum(volumes.values())
    index = json.loads((Path(said["path"]) / "bundle.json").read_bytes())
    assert said["held"] == {
        "files": len(index["held"]), "size": sum(file["size"] for file in index["held"])
    }  # fmt: skip
    assert (said["held"], dry["variants_size"]) == (dry["held"], 0)
    assert said["set_up_with"] == dry["set_up_with"] == "demo-1.0.0"
    assert said["size"] - (1 << 20) < dry["size"] < said["size"]  # which has documents, too
    again = document(airpack(cache, *words, "--dry-run", "--with-setup", "-o", tmp_path / "x"))
    assert again["set_up_with"] is None
    wheels = sum(f["size"] for f in index["set_up_with"]["files"])
    assert again["small_size"] == dry["small_size"] + wheels


def test_a_dry_run_cannot_say_of_what_is_not_here_whether_it_travels(
    workplace: Workplace, built: Path, recipe: Path, tmp_path: Path
) -> None:
    words = ("build", recipe, "-o", tmp_path / "out", "--base", built, "--dry-run")
    done = airpack(tmp_path / "empty", *words)
    assert "airpack itself is counted; it stays at home if the host was set up with" in done.stdout
    assert "home; so will GGUF files that the base has, which is seen once" in done.stdout
    assert not (tmp_path / "empty").exists()
    there = airpack(workplace.cache.root, *words).stdout
    assert "MiB, stays at home: the host was set up with the same by demo-1.0.0" in there
    assert "so will" not in there


@pytest.mark.parametrize("dry", [False, True])
def test_105_volumes_beyond_what_the_disk_takes_are_refused_before_anything(
    recipe: Path, tmp_path: Path, dry: bool
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [*AIRPACK, "build", recipe, "-o", disk / "out", "--volume-size", "8GiB"]
    done = in_small_disk(
        disk, "1m", on_fat(*words, *["--dry-run"] * dry) + '; echo $?; ls "$PLACE"'
    )

    assert done.stdout == "13\n"
    assert f"error: {disk}: volumes of 8 GiB were asked for" in done.stderr
    assert "try: --volume-size auto, or build on exFAT or ext4: -o DIR" in done.stderr
    assert not recipe.with_suffix(".lock.json").exists()


def test_101_a_read_only_disk_is_refused_before_anything(recipe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_small_disk(disk, "1m", read_only(*AIRPACK, "build", recipe, "-o", disk / "out"))

    assert done.returncode == 1
    assert f"error: {disk}: is read-only" in done.stderr
    assert not recipe.with_suffix(".lock.json").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_99_a_disk_that_is_certainly_too_small_is_refused_before_anything_is_fetched(
    recipe: Path, tmp_path: Path, dry: bool
) -> None:
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    words = map(str, [*AIRPACK, "build", recipe, "-o", disk / "out", *["--dry-run"] * dry])
    script = f'AIRPACK_CACHE="{cache}" {shlex.join(words)}; echo $?; ls "$PLACE"'
    done = in_small_disk(disk, "4m", script)

    assert done.stdout == "13\n"
    assert f"error: {disk}/out: " in done.stderr
    assert " needed, 4 MiB free" in done.stderr
    assert "airpack copy BUNDLE MEDIUM..." in done.stderr
    assert not cache.exists()


def test_99_a_disk_too_small_for_what_will_be_quantized_is_refused_before_it_is(
    workplace: Workplace, built: Path, recipe: Path, tmp_path: Path
) -> None:
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    cache.mkdir()
    (cache / "setup").symlink_to(workplace.cache.root / "setup")
    size = sum(sizes(built).values()) - (3 << 20)
    words = map(str, [*AIRPACK, "build", recipe, "-o", disk / "out"])
    script = f'AIRPACK_CACHE="{cache}" {shlex.join(words)}; echo $?; ls "$PLACE"'
    done = in_small_disk(disk, str(size), script)

    assert done.stdout == "13\n"
    assert " needed, " in done.stderr
    assert not (cache / "derived").exists()
