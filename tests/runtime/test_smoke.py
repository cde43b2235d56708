from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.watching import Watching

from packager.errors import SmokeTestError, UsageError
from packager.format.gguf_header import parse_header
from packager.format.golden import Golden
from packager.progress import Silent
from packager.runtime.smoke import SmokeResult, record_golden, smoke_test

FLIPPED = 2000


def flip_bytes(model: Path, out: Path, seed: int) -> Path:
    """A copy with bytes of tensor data changed, as digests aside nothing would notice."""
    with model.open("rb") as stream:
        header = parse_header(stream, file_size=model.stat().st_size, what=model.name)
    data = bytearray(model.read_bytes())
    chance = random.Random(seed)
    for position in chance.sample(range(header.data_begin, len(data)), FLIPPED):
        data[position] ^= chance.randrange(1, 256)
    out.write_bytes(data)
    return out


def elsewhere(golden: Golden) -> Golden:
    """``golden`` as if it had been recorded on another CPU."""
    return replace(golden, circumstances=replace(golden.circumstances, cpu="another CPU"))


def test_the_result_has_the_keys_that_scripts_read() -> None:
    assert [field.name for field in fields(SmokeResult)] == [
        "ok", "variant", "tokens_match", "expected", "actual", "perplexity",
        "perplexity_expected", "tokens_per_second", "egress", "cosine",
    ]  # fmt: skip


def test_recording_twice_gives_the_same_golden(demo_model: Path, demo_golden: Golden) -> None:
    prompts = [answer.prompt for answer in demo_golden.answers]
    assert record_golden(demo_model, prompts=prompts, max_tokens=24, progress=Silent()) == (
        demo_golden
    )


def test_the_same_model_passes_and_repeats_every_token(
    demo_model: Path, demo_golden: Golden
) -> None:
    watching = Watching()
    result = smoke_test(demo_model, demo_golden, variant="q4_k_m", progress=watching)
    assert result.ok
    assert result.tokens_match
    assert result.expected == result.actual
    assert result.perplexity == result.perplexity_expected
    assert result.tokens_per_second > 0
    assert result.variant == "q4_k_m"
    assert watching.notes == []
    assert [(task.done, task.total) for task in watching.tasks] == [(224, 224)]


@pytest.mark.parametrize("seed", range(5))
def test_2000_flipped_bytes_fail_on_the_same_kind_of_host(
    demo_model: Path, demo_golden: Golden, tmp_path: Path, seed: int
) -> None:
    damaged = flip_bytes(demo_model, tmp_path / "damaged.gguf", seed)
    watching = Watching()
    result = smoke_test(damaged, demo_golden, variant="v", progress=watching)
    assert not result.ok
    assert watching.notes


@pytest.mark.parametrize("seed", range(5))
def test_2000_flipped_bytes_fail_on_another_kind_of_host(
    demo_model: Path, demo_golden: Golden, tmp_path: Path, seed: int
) -> None:
    damaged = flip_bytes(demo_model, tmp_path / "damaged.gguf", seed)
    recorded = elsewhere(demo_golden)
    assert not smoke_test(damaged, recorded, variant="v", progress=Silent()).ok


def test_another_kind_of_host_passes_within_the_tolerance(
    demo_model: Path, demo_golden: Golden
) -> None:
    recorded = elsewhere(demo_golden)
    assert smoke_test(demo_model, recorded, variant="v", progress=Silent()).ok


def test_an_answer_that_ends_within_a_character_is_recorded_and_repeated(
    random_model: Path,
) -> None:
    # Random weights choose random bytes: many of them are the first of a longer character.
    golden = record_golden(
        random_model, prompts=("€", "the"), max_tokens=16, text="Größe, 大きさ", progress=Silent()
    )
    assert "\ufffd" in golden.answers[0].text + golden.answers[1].text
    assert smoke_test(random_model, golden, variant="v", progress=Silent()).ok


def test_another_model_fails_and_says_why(random_model: Path, demo_golden: Golden) -> None:
    watching = Watching()
    recorded = elsewhere(demo_golden)
    with pytest.raises(SmokeTestError, match="invalid tokens"):
        smoke_test(random_model, recorded, variant="v", progress=watching)


def test_a_model_that_the_engine_cannot_open_is_a_failed_smoke_test(
    random_model: Path, demo_golden: Golden, tmp_path: Path
) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(random_model.read_bytes().replace(b"llama", b"lamma"))
    with pytest.raises(SmokeTestError, match=r"v: .*unknown model architecture"):
        smoke_test(strange, demo_golden, variant="v", progress=Silent())


def test_a_text_too_short_to_measure_is_refused_at_the_build(random_model: Path) -> None:
    with pytest.raises(UsageError, match="too short"):
        record_golden(random_model, prompts=["the"], max_tokens=2, text="", progress=Silent())
