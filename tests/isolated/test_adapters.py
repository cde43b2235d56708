"""LoRA adapters on the isolated host: each with the file it is bound to, and tested with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.adapters import query_adapter
from support.bundles import EngineVariant, make_bundle, resign
from support.checkpoints import files_of
from support.hosts import Host

from packager.connected.packing.spares import write_spares
from packager.connected.signing.keys import SigningKey
from packager.errors import MalformedError, MissingVolumeError, SmokeTestError
from packager.format import canonical
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE
from packager.format.foreign_json import parse_json_object
from packager.isolated.lifecycle import find_variant, smoke
from packager.progress import Silent
from packager.quantize.lora.convert import read_adapter, write_adapter
from packager.runtime.smoke import record_golden

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"
PROMPT = "In the beginning"


@pytest.fixture(scope="module")
def legal(demo_variant: EngineVariant, tmp_path_factory: pytest.TempPathFactory) -> EngineVariant:
    """An adapter to the embedded model, and how the two answer."""
    place = tmp_path_factory.mktemp("adapter")
    folder = query_adapter(place / "source", width=256)
    config = parse_json_object((DEMO / "config.json").read_bytes(), what="config.json")
    out = place / "legal.gguf"
    write_adapter(read_adapter(files_of(folder), config), out, name="legal", progress=Silent())
    golden = record_golden(
        demo_variant.model, prompts=[PROMPT], max_tokens=8, adapter=out, progress=Silent()
    )
    return EngineVariant("legal", out, golden, base="q4_k_m")


def bundle_of(place: Path, key: SigningKey, *variants: EngineVariant, sequence: int = 1) -> Path:
    return make_bundle(place, [key], files={}, engine_variants=variants, sequence=sequence)


def test_both_are_tested_and_each_is_found_with_what_the_engine_opens(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    done = host.install(bundle_of(tmp_path / "b", key, demo_variant, legal), smoke=True)
    assert [(r.variant, r.ok, r.tokens_match) for r in done.smoke] == [
        ("q4_k_m", True, True), ("legal", True, True),
    ]  # fmt: skip
    assert done.smoke[0].actual != done.smoke[1].actual
    model = find_variant(host.home, "tiny", None)
    adapted = find_variant(host.home, "tiny", "legal")
    assert model.adapter is None
    assert adapted.model == model.model == done.path / "q4_k_m" / "demo.gguf"
    assert adapted.adapter == done.path / "legal" / "legal.gguf"
    assert smoke(host.home, "tiny", "legal", Silent()).ok


def test_asking_for_the_adapter_alone_brings_its_base_and_nothing_else(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    other = replace(demo_variant, name="other")
    bundle = bundle_of(tmp_path / "b", key, demo_variant, other, legal)
    done = host.install(bundle, variant="legal")
    assert done.receipt.variants == ("q4_k_m", "legal")
    assert sorted(path.name for path in done.path.iterdir() if path.is_dir()) == [
        "legal", "q4_k_m",
    ]  # fmt: skip
    assert host.install(bundle, variant="q4_k_m").receipt.variants == ("q4_k_m",)


def test_a_base_that_answers_alone_is_not_taken_for_the_two(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    alone = replace(legal, golden=demo_variant.golden)
    bundle = bundle_of(tmp_path / "b", key, demo_variant, alone)
    with pytest.raises(SmokeTestError, match="legal: does not answer as it did at the build"):
        host.install(bundle, smoke=True)
    assert host.last_refusal().startswith("legal: ")


def test_a_file_that_is_no_adapter_is_refused_whoever_signed_it(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    strange = replace(legal, model=demo_variant.model)
    bundle = bundle_of(tmp_path / "b", key, demo_variant, strange)
    before = host.state()
    with pytest.raises(SmokeTestError, match=r"legal: .*demo\.gguf: not a LoRA adapter"):
        host.install(bundle, smoke=True)
    assert host.state() == before


def test_an_adapter_bound_to_another_file_is_refused_whoever_signed_it(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    bundle = bundle_of(tmp_path / "b", key, demo_variant, legal)
    index = canonical.decode(
        (bundle / INDEX_NAME).read_bytes(), what=INDEX_NAME, max_size=MAX_INDEX_SIZE
    )
    index["variants"][1]["base"]["digest"] = "0" * 64  # type: ignore[index, call-overload]
    (bundle / INDEX_NAME).write_bytes(canonical.encode(index))
    write_spares(bundle, [INDEX_NAME])
    resign(bundle, [key])
    before = host.state()
    with pytest.raises(MalformedError, match="adapter legal: is for another file than q4_k_m has"):
        host.install(bundle)
    assert host.state() == before


def test_an_adapter_travels_alone_to_a_host_that_holds_its_base(
    tmp_path: Path, host: Host, key: SigningKey, demo_variant: EngineVariant, legal: EngineVariant
) -> None:
    delta = make_bundle(
        tmp_path / "b", [key], version="2.0.0", sequence=2, files={},
        engine_variants=[demo_variant, legal], held={"demo.gguf": "tiny-1.0.0"},
    )  # fmt: skip
    assert sum(path.stat().st_size for path in delta.glob("payload.*")) < 100_000
    with pytest.raises(MissingVolumeError, match=r"tiny-1\.0\.0"):
        host.install(delta, variant="legal")
    host.install(bundle_of(tmp_path / "first", key, demo_variant))

    done = host.install(delta, variant="legal", smoke=True)

    assert [(result.variant, result.ok) for result in done.smoke] == [
        ("q4_k_m", True), ("legal", True),
    ]  # fmt: skip
