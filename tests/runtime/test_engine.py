from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packager.errors import EngineError, HostError, IntegrityError
from packager.runtime import engine as engine_module
from packager.runtime.engine import Engine, EngineOptions, Sampling
from packager.runtime.process import last_words

HOLD = """
import sys, time
from pathlib import Path
from packager.runtime.engine import Engine
engine = Engine(Path(sys.argv[1]))
print(engine.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return re.search(r"^State:\s+[ZX]", status, re.MULTILINE) is None


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


def test_a_text_becomes_tokens_after_the_beginning_of_sequence(random_model: Path) -> None:
    with Engine(random_model) as engine:
        first, *rest = engine.tokenize("the")
    assert first == 262
    assert rest == [257]


def test_five_processes_give_the_same_tokens_and_probabilities(random_model: Path) -> None:
    heard = []
    for threads in (1, 2, 1, 3, 2):
        options = EngineOptions(measuring=True, threads=threads)
        with Engine(random_model, options) as engine:
            prompt = engine.tokenize("In the beginning")
            generation = engine.generate(prompt, 12)
            positions = tuple(engine.follow(prompt, generation.tokens))
            losses = tuple(engine.losses(engine.tokenize("the end and the beginning")))
        heard.append((generation.tokens, generation.text, positions, losses))
    assert len(set(heard)) == 1
    assert len(heard[0][0]) == 12


def test_what_follows_is_what_was_generated(random_model: Path) -> None:
    with Engine(random_model, EngineOptions(measuring=True)) as engine:
        prompt = engine.tokenize("In the beginning")
        generation = engine.generate(prompt, 12)
        positions = list(engine.follow(prompt, generation.tokens, 5))
    assert tuple(position[0][0] for position in positions) == generation.tokens
    assert all(len(position) == 5 for position in positions)
    assert all(logprob <= 0 for position in positions for _, logprob in position)


def test_a_token_within_a_character_gets_probabilities_all_the_same(random_model: Path) -> None:
    with Engine(random_model, EngineOptions(measuring=True)) as engine:
        euro = engine.tokenize("€")[1:]
        assert len(euro) == 3
        positions = list(engine.follow(engine.tokenize("It costs "), euro, 3))
        losses = list(engine.losses(engine.tokenize("a €")))
    assert [len(position) for position in positions] == [3, 3, 3]
    assert losses.count(None) == 1


def test_an_answer_left_early_does_not_run_into_the_next(random_model: Path) -> None:
    with Engine(random_model) as engine:
        alone = "".join(engine.complete("the end", max_tokens=8))
        for _ in engine.complete("In the beginning", max_tokens=400):
            break
        assert "".join(engine.complete("the end", max_tokens=8)) == alone


def test_ctrl_c_stops_the_answer_and_not_the_engine(random_model: Path) -> None:
    with Engine(random_model) as engine:
        pieces = engine.complete("the", max_tokens=400)
        next(pieces)
        os.kill(engine.pid, signal.SIGINT)  # as the terminal sends it to both
        with pytest.raises(KeyboardInterrupt):
            raise_interrupt(pieces)
        assert len("".join(engine.complete("the", max_tokens=4))) > 0


def raise_interrupt(pieces: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def test_a_seed_makes_a_warm_answer_repeat_itself(random_model: Path) -> None:
    with Engine(random_model) as engine:
        answers = {
            "".join(engine.complete("the", max_tokens=12, sampling=Sampling(1.0, seed)))
            for seed in (7, 7, 8)
        }
    assert len(answers) == 2


def test_a_prompt_longer_than_the_context_is_refused_and_the_next_is_answered(
    random_model: Path,
) -> None:
    with Engine(random_model, EngineOptions(context=256)) as engine:
        with pytest.raises(EngineError, match="exceeds the available context size") as refused:
            list(engine.complete("and " * 400, max_tokens=4))
        assert refused.value.hint
        assert list(engine.complete("and", max_tokens=4))


def test_the_context_is_at_most_the_models_own(random_model: Path) -> None:
    with Engine(random_model, EngineOptions(context=1 << 20)) as engine:
        assert engine.context == 512


def test_the_routes_of_a_private_engine_are_closed_to_others(random_model: Path) -> None:
    import http.client

    with Engine(random_model, EngineOptions(isolate=False)) as engine:
        connection = http.client.HTTPConnection(engine.url.removeprefix("http://"))
        connection.request("POST", "/completion", '{"prompt": "the"}')
        assert connection.getresponse().status == 401
        connection.close()


def test_an_engine_that_dies_is_one_error_with_the_signals_number(random_model: Path) -> None:
    with Engine(random_model) as engine:
        os.kill(engine.pid, signal.SIGSEGV)
        with pytest.raises(EngineError, match="stopped by signal 11"):
            engine.tokenize("the")


def test_an_engine_that_hangs_is_given_up(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SILENCE_SECONDS", 0.3)
    with Engine(random_model) as engine:
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineError, match="silent for 0 seconds"):
            engine.identity()
    assert wait_until_gone(pid)


def test_a_parent_that_is_killed_takes_the_engine_with_it(random_model: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(random_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        assert wait_until_gone(pid)


def test_leaving_the_engine_ends_its_process(random_model: Path) -> None:
    with Engine(random_model) as engine:
        pid = engine.pid
    assert not is_running(pid)


def test_the_engine_sees_no_token_of_the_callers(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Engine(random_model) as engine:
        environment = Path(f"/proc/{engine.pid}/environ").read_bytes()
    assert b"hf_secret" not in environment
    assert b"HF_HUB_OFFLINE=1" in environment


def test_a_carried_libgomp_under_its_plain_name_is_the_one_that_is_loaded(
    random_model: Path, tmp_path: Path
) -> None:
    with Engine(random_model) as engine:
        system = loaded_libgomp(engine.pid)
    carried = tmp_path / "libgomp.so.1"
    shutil.copyfile(system, carried)
    with Engine(random_model, EngineOptions(libraries=tmp_path)) as engine:
        assert loaded_libgomp(engine.pid) == carried


def loaded_libgomp(pid: int) -> Path:
    maps = Path(f"/proc/{pid}/maps").read_text()
    [path] = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line}
    return Path(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"nothing\.gguf: no such file"):
        Engine(tmp_path / "nothing.gguf")


def test_a_truncated_model_is_refused_before_the_engine_starts(
    random_model: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(random_model.read_bytes()[:-1000])
    with pytest.raises(IntegrityError, match=r"short\.gguf"):
        Engine(short)


def test_a_model_the_engine_does_not_know_is_refused_in_its_own_words(
    random_model: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(random_model.read_bytes().replace(b"llama", b"lamma"))
    with pytest.raises(EngineError, match="unknown model architecture: 'lamma'"):
        Engine(strange)


def test_the_identity_is_that_of_the_installed_engine(random_model: Path) -> None:
    with Engine(random_model) as engine:
        identity = engine.identity()
    assert identity.engine == "xllamacpp"
    assert identity.version[0].isdigit()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("0.00.1.2 E first cause\n0.00.1.3 E passed on\n", "first cause"),
        ("0.00.1.2 E cause\nTraceback:\nValueError: x\n", "cause; ValueError: x"),
        ("a\x1b[31mb\n", "a?[31mb"),
    ],
)
def test_last_words(log: str, words: str) -> None:
    assert last_words(log) == words
