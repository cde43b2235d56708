"""The whole near half: what lies on the medium, and that it is the same each time."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

from support.builds import copy_of, differences, digests, index_of, rebuilt, sums_hold
from support.bundles import make_key
from support.watching import Watching
from support.workplace import NOW, PYTHON, Workplace

from packager.connected.build import build
from packager.format.lock import parse_lock
from packager.format.sums import parse_sums
from packager.progress import Silent


def test_the_medium_holds_what_it_must(workplace: Workplace, built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())

    assert {
        "READ-ME-FIRST.txt",
        "SHA256SUMS",
        f"SHA256SUMS.{workplace.key.public.key_id}.sig",
        "bundle.json",
        "lock.json",
        "payload.00001",
        "setup.sh",
        "libgomp.so.1",
        "sbom.cdx.json",
        "provenance.json",
        "report.html",
        f"provenance.{workplace.key.public.key_id}.dsse.json",
        "FORMAT.md",
        "LICENSE.engine.txt",
        "LICENSE.libgomp.txt",
        "spare.READ-ME-FIRST.txt",
        "spare.SHA256SUMS",
        f"spare.SHA256SUMS.{workplace.key.public.key_id}.sig",
        "spare.bundle.json",
        "spare.lock.json",
        "spare.setup.sh",
        "spare.sbom.cdx.json",
        "spare.provenance.json",
        "spare.report.html",
        f"spare.provenance.{workplace.key.public.key_id}.dsse.json",
        f"q4_k_m.{workplace.key.public.key_id}.model.sig",
        f"original.{workplace.key.public.key_id}.model.sig",
        f"spare.q4_k_m.{workplace.key.public.key_id}.model.sig",
        f"spare.original.{workplace.key.public.key_id}.model.sig",
        f"requirements-{PYTHON}.txt",
    } == {name for name in names if not name.endswith(".whl")}
    assert built.name == "demo-1.0.0"
    assert all(path.is_file() and not path.is_symlink() for path in built.iterdir())
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in names)
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_sums_list_every_file_but_themselves_and_signatures(built: Path) -> None:
    listed = parse_sums((built / "SHA256SUMS").read_bytes())

    signatures = ("SHA256SUMS", ".model.sig", ".dsse.json")
    unsigned = {name for name in digests(built) if not any(part in name for part in signatures)}
    assert listed.keys() == unsigned
    assert sums_hold(built)


def test_payload_holds_the_variants_and_all_that_sets_airpack_up(built: Path) -> None:
    index = index_of(built)
    sums = parse_sums((built / "SHA256SUMS").read_bytes())

    setup = {f.path.removeprefix("setup/"): f for f in index.files if f.path.startswith("setup/")}
    beside = {"READ-ME-FIRST.txt", "bundle.json", "lock.json", "payload.00001"}
    beside |= {"sbom.cdx.json", "provenance.json", "report.html"}
    assert setup.keys() == {name for name in sums.keys() - beside if "spare." not in name}
    assert all(file.digest == sums[name] for name, file in setup.items())

    quantized, original = index.variants
    assert [f.path.rpartition("/")[2] for f in index.variant_files(quantized)] == [
        "demo-q4_k_m.gguf", "LICENSE", "README.md",
    ]  # fmt: skip
    assert quantized.golden is not None
    assert original.golden is None
    carried = {f.path.rpartition("/")[2]: f.digest.hex for f in index.variant_files(original)}
    lock = parse_lock((built / "lock.json").read_bytes(), where="lock.json")
    assert carried == {file.path: file.content.hex for file in lock.files}


def test_stock_tar_unpacks_the_files_that_the_index_lists(built: Path, tmp_path: Path) -> None:
    subprocess.run(f"cat '{built}'/payload.* | tar -x -f - -C '{tmp_path}'", shell=True, check=True)

    found = {
        path.relative_to(tmp_path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == {file.path: file.digest.hex for file in index_of(built).files}


def test_every_command_of_the_read_me_works_as_it_stands(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    text = (built / "READ-ME-FIRST.txt").read_bytes().decode("ascii")
    key_id = workplace.key.public.key_id
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]

    openssl = f"openssl dgst -sha256 -verify KEY.pub -signature SHA256SUMS.{key_id}.sig SHA256SUMS"
    assert {openssl, "sha256sum -c SHA256SUMS", "cat payload.* | tar -x -f -"} <= set(commands)
    assert "~/airpack/bin/airpack run demo 'In the beginning'" in commands
    assert workplace.key.public.spoken_fingerprint.splitlines()[0] in text
    public = shlex.quote(str(workplace.recipe.with_name("team.key.pub")))
    done = subprocess.run(
        openssl.replace("KEY.pub", public), cwd=built, shell=True, capture_output=True, check=True
    )
    assert done.stdout == b"Verified OK\n"


def test_nothing_on_the_medium_names_the_place_it_was_built_at(
    workplace: Workplace, built: Path
) -> None:
    places = [str(workplace.recipe.parent), str(Path.cwd())]
    for path in built.iterdir():
        if path.suffix in (".txt", ".json", ".sh"):
            text = path.read_text("utf-8")
            assert not any(place in text for place in places), path


def test_a_second_build_is_the_same_to_the_byte(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    """From a cache of wheels alone: the model is quantized and measured again."""
    cache = copy_of(workplace.cache, tmp_path / "cache", "setup")

    assert differences(rebuilt(workplace, tmp_path / "out", cache), built) == []


def test_payload_does_not_depend_on_the_key_nor_on_volumes_or_time(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other.key")
    request = workplace.request(tmp_path / "out", volume_size=20 << 20)
    request = replace(request, keys=(other,), now=NOW.replace(year=2030))

    made = build(request, workplace.cache, Silent())

    volumes = sorted(made.glob("payload.*"))
    assert [volume.stat().st_size for volume in volumes[:-1]] == [20 << 20] * (len(volumes) - 1)
    assert b"".join(v.read_bytes() for v in volumes) == (built / "payload.00001").read_bytes()
    assert index_of(made).created == "2030-11-24T12:00:00Z"
    assert replace(index_of(made), created="", volumes=()) == replace(
        index_of(built), created="", volumes=()
    )


def test_unsigned_bundle_says_so(workplace: Workplace, built: Path, tmp_path: Path) -> None:
    made = build(replace(workplace.request(tmp_path), keys=()), workplace.cache, Silent())

    text = (made / "READ-ME-FIRST.txt").read_text("ascii")
    assert "not signed at the build" in text
    assert "-signature SHA256SUMS.KEY-ID.sig SHA256SUMS" in text
    assert list(made.glob("*.sig")) == []


def test_the_bytes_that_all_of_it_takes_are_said_before_it_is_written(
    workplace: Workplace, built: Path, tmp_path: Path
) -> None:
    watching = Watching()
    request = replace(workplace.request(tmp_path, volume_size=8 << 20), parity=2)
    made = build(request, workplace.cache, watching)

    [said] = [note for note in watching.notes if note.startswith("the bundle takes ")]
    size = sum(path.stat().st_size for path in made.iterdir())
    stated = int(re.search(r"\((\d+) bytes\)", said)[1])  # type: ignore[index]
    assert 0 <= stated - size <= 4  # a signature's DER is 70 to 72 bytes, and there are two
    count = len(index_of(made).volumes)
    assert f": {count} volumes of up to 8 MiB, 2 of parity, and " in said
