"""The engine watched while it reads: what goes into its weights, and every logit."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from packager.connected.variants.calibrate import calibrate
from packager.connected.variants.observe.elf import find_slot
from packager.connected.variants.observe.logits import check_vocabulary, judge, write_logprobs
from packager.connected.variants.observe.observer import Observer
from packager.connected.variants.observe.reading import read_windows
from packager.connected.variants.quality import Baseline, measure_quality
from packager.errors import EngineError, UsageError
from packager.progress import Silent
from packager.quantize.kernels import find_library
from packager.quantize.pipeline import quantize
from packager.runtime.engine import Engine, EngineOptions

DEMO = Path(__file__).parents[2] / "packager" / "demo"
TEXT = (DEMO / "held-out.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in float32."""
    out = tmp_path_factory.mktemp("original") / "original.gguf"
    sources = {path.name: path for path in (DEMO / "tiny-kjv").iterdir()}
    quantize(sources, "F32", out, name="demo", progress=Silent())
    return out


def _values(model: Path, name: str) -> np.ndarray:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(model).tensors}
    return np.array(tensors[name].data, np.float64)


def test_the_first_layers_inputs_are_the_normalized_embeddings_of_the_text(original: Path) -> None:
    matrix = calibrate(original, TEXT[:4000], dataset="held-out.txt", progress=Silent())
    with Observer(original, window=512) as observer:
        windows = read_windows(observer, TEXT[:4000], most=128, what="held-out.txt")
    rows = _values(original, "token_embd.weight")[[t for window in windows for t in window]]
    rows /= np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-5)
    expected = np.sum((rows * _values(original, "blk.0.attn_norm.weight")) ** 2, axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        entry = matrix.tensors[f"blk.0.{name}.weight"]
        assert entry.counts.tolist() == [len(rows)]
        np.testing.assert_allclose(entry.sums[0], expected, rtol=1e-3)


def test_every_weight_of_a_layer_is_seen_and_no_other(original: Path) -> None:
    matrix = calibrate(original, TEXT[:4000], dataset="held-out.txt", progress=Silent())
    products = {
        tensor.name
        for tensor in gguf.GGUFReader(original).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2
    }
    assert set(matrix.tensors) == products


def test_the_logits_are_those_that_the_engine_itself_states(original: Path, tmp_path: Path) -> None:
    with Engine(original, EngineOptions(measuring=True)) as engine:
        tokens = engine.tokenize(TEXT)[:64]
        stated = list(engine.losses(tokens))[32:]
    with Observer(original, window=512) as observer:
        list(observer.record([tokens], tmp_path / "answers"))
    rows = np.fromfile(tmp_path / "answers", "<f4").reshape(31, -1)
    seen = [row[token] * 1e6 for row, token in zip(rows, tokens[33:], strict=True)]
    pairs = [(a, b) for a, b in zip(seen, stated, strict=True) if b is not None]
    assert len(pairs) > 20
    assert all(abs(a - b) < 1000 for a, b in pairs)


def test_a_model_does_not_differ_from_itself(original: Path, tmp_path: Path) -> None:
    ((_, found),) = measure_quality(
        {"same": original}, Baseline(original, "F32"), TEXT[:6000],
        folder=tmp_path, what="text", progress=Silent(),
    )  # fmt: skip
    assert found.loss == found.original_loss
    assert found.agreement == 1_000_000
    assert found.divergence < 1000
    assert list(tmp_path.iterdir()) == []


def test_fewer_bits_cost_more(original: Path, demo_model: Path, tmp_path: Path) -> None:
    coarse = tmp_path / "coarse.gguf"
    sources = {path.name: path for path in (DEMO / "tiny-kjv").iterdir()}
    quantize(sources, "Q2_K", coarse, name="demo", progress=Silent())
    found = dict(measure_quality(
        {"q4": demo_model, "q2": coarse}, Baseline(original, "F32"), TEXT[:20000],
        folder=tmp_path, what="text", progress=Silent(),
    ))  # fmt: skip
    assert 0 < found["q4"].divergence < found["q2"].divergence
    assert found["q4"].agreement > found["q2"].agreement
    assert found["q2"].increase - found["q2"].increase_margin > 0
    assert found["q4"].original_loss == found["q2"].original_loss


def test_a_text_of_a_few_words_is_refused(original: Path) -> None:
    with pytest.raises(UsageError, match=r"tiny.txt: too short"):
        calibrate(original, "In the beginning", dataset="tiny.txt", progress=Silent())


def test_a_function_that_the_engine_does_not_call_cannot_be_watched() -> None:
    with pytest.raises(EngineError, match="cannot be watched"):
        find_slot(find_library(), "no_such_function")


def test_what_is_no_shared_object_cannot_be_watched(tmp_path: Path) -> None:
    path = tmp_path / "engine.so"
    path.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(EngineError, match="cannot be watched"):
        find_slot(path, "ggml_backend_sched_set_eval_callback")


def test_the_slot_lies_in_the_loaded_object_and_names_the_function() -> None:
    path = find_library()
    function = "ggml_backend_sched_set_eval_callback"
    slot = find_slot(path, function)
    library = ctypes.CDLL(str(path))
    other = ctypes.cast(library.ggml_get_name, ctypes.c_void_p).value
    here = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    assert other is not None
    assert here is not None
    assert here - other == slot.function - _offset_of(path, "ggml_get_name")


def _offset_of(path: Path, function: str) -> int:
    return find_slot(path, function).function


def test_divergence_and_losses_of_two_known_distributions(tmp_path: Path) -> None:
    original = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))
    found = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]], np.float32))
    write_logprobs(tmp_path / "answers", 0, original + 3)
    scores = judge(tmp_path / "answers", 0, found - 2, np.array([0, 2]))
    assert scores.divergences == pytest.approx([0.25 * math.log(2), 0], abs=1e-6)
    assert scores.losses == pytest.approx([math.log(4), -math.log(0.8)], rel=1e-6)
    assert scores.original_losses == pytest.approx([math.log(2), -math.log(0.8)], rel=1e-6)
    assert scores.agrees == [False, True]


def test_a_variant_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    write_logprobs(tmp_path / "answers", 0, np.zeros((2, 3), np.float32))
    for vocabulary in (2, 4):
        with pytest.raises(EngineError, match="vocabulary"):
            check_vocabulary(tmp_path / "answers", [5], vocabulary)
