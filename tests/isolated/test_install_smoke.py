"""Installs of the embedded model, which answers or does not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import EngineVariant, make_bundle
from support.hosts import Host
from support.watching import Watching

from packager.connected.signing.keys import SigningKey
from packager.errors import IntegrityError, SmokeTestError, UsageError
from packager.format.gguf_header import parse_header
from packager.isolated.lifecycle import find_variant, smoke
from packager.progress import Silent

FLIPPED = 2000


@pytest.fixture
def running(tmp_path: Path, host: Host, key: SigningKey) -> Host:
    """A host with generation 1 of the model, which was not tested."""
    host.install(make_bundle(tmp_path / "first", [key], version="0.9.0"))
    return host


def flip_bytes(model: Path, out: Path) -> Path:
    """A copy with bytes of tensor data changed: what an insider could sign."""
    with model.open("rb") as stream:
        header = parse_header(stream, file_size=model.stat().st_size, what=model.name)
    data = bytearray(model.read_bytes())
    chance = random.Random(1)
    for position in chance.sample(range(header.data_begin, len(data)), FLIPPED):
        data[position] ^= chance.randrange(1, 256)
    out.write_bytes(data)
    return out


def test_a_model_that_answers_as_at_the_build_is_installed_with_its_result(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[demo_variant])
    done = running.install(bundle, smoke=True)
    assert running.current() == 2
    assert [(r.variant, r.ok, r.tokens_match) for r in done.smoke] == [("q4_k_m", True, True)]
    assert [(r.variant, r.ok) for r in done.receipt.smoke] == [("q4_k_m", True)]
    assert running.events()[-1].details["smoke"] == "passed"
    found = find_variant(running.home, "tiny", None)
    assert found.variant.name == "q4_k_m"
    assert found.model == done.path / "q4_k_m" / demo_variant.model.name
    assert smoke(running.home, "tiny", None, Silent()).ok


def test_2000_flipped_bytes_signed_by_an_insider_leave_the_old_generation_current(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    model = flip_bytes(demo_variant.model, tmp_path / "demo.gguf")
    damaged = replace(demo_variant, model=model)
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[damaged])
    before = running.state()
    watching = Watching()
    with pytest.raises(SmokeTestError, match="q4_k_m: does not answer as it did at the build"):
        running.install(bundle, smoke=True, progress=watching)
    assert watching.notes[0].startswith("original: carried as it is")
    assert running.state() == before  # no blob, no mark, no temporary
    assert running.current() == 1
    assert running.last_refusal() == "q4_k_m: does not answer as it did at the build"
    assert running.events()[-1].details["exit_code"] == 15


def test_nothing_of_the_new_generation_is_visible_while_it_is_tested(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[demo_variant])
    seen: list[list[str]] = []

    class Looking(Watching):
        def task(self, label: str, total: int, **_options: object) -> object:  # type: ignore[override]
            if label.startswith("smoke"):
                names = [path.name for path in (running.home.models / "tiny").iterdir()]
                seen.append(sorted(names))
                assert running.current() == 1
                assert (running.home.trust / "sequences.json").read_bytes() == marks
                assert len(running.events()) == 1
            return super().task(label, total)

    marks = (running.home.trust / "sequences.json").read_bytes()
    running.install(bundle, smoke=True, progress=Looking())
    assert seen == [[".staging", "1", "current"]]


def test_75_a_file_that_is_no_model_is_refused_whoever_signed_it(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    strange = tmp_path / "demo.gguf"
    strange.write_bytes(b"GGUF" + bytes(10_000))
    bundle = make_bundle(
        tmp_path / "b", [key], sequence=2, files={},
        engine_variants=[replace(demo_variant, model=strange)],
    )  # fmt: skip
    before = running.state()
    with pytest.raises(IntegrityError, match=r"demo\.gguf: GGUF version 0"):
        running.install(bundle, smoke=True)
    assert running.state() == before


def test_a_variant_is_found_by_name_and_one_without_an_engine_is_refused(
    tmp_path: Path, running: Host, key: SigningKey, demo_variant: EngineVariant
) -> None:
    bundle = make_bundle(tmp_path / "b", [key], sequence=2, engine_variants=[demo_variant])
    running.install(bundle)
    assert find_variant(running.home, "tiny", "q4_k_m").variant.name == "q4_k_m"
    with pytest.raises(UsageError, match="tiny original: carried as it is"):
        find_variant(running.home, "tiny", "original")
    with pytest.raises(UsageError, match="no variant 'q8_0' installed; it has original, q4_k_m"):
        find_variant(running.home, "tiny", "q8_0")
