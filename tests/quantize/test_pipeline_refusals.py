"""A source that is not whole, or not what it says, and a run that ends early: nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.checkpoints import (
    REFERENCES,
    change_tensor,
    files_of,
    read_tensors,
    safetensors_bytes,
    write_llama,
)

from packager.errors import (
    AirpackError,
    HostError,
    IntegrityError,
    MalformedError,
    TruncatedError,
    UnsafeContentError,
    UsageError,
)
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.quantize.plan import Plan, make_plan


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def fails_and_leaves_nothing(
    model: Path, error: type[AirpackError], match: str, type_name: str = "Q4_K_M"
) -> None:
    out = model.parent / "out" / "model.gguf"
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(b"the one before")
    with pytest.raises(error, match=match):
        quantize(files_of(model), type_name, out, name="m", progress=Silent())
    assert list(out.parent.iterdir()) == [out]
    assert out.read_bytes() == b"the one before"


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_74_infinity_and_nan_are_refused_with_the_tensors_name(model: Path, bits: int) -> None:
    change_tensor(model, "model.layers.1.mlp.up_proj.weight", lambda v: v.__setitem__(777, bits))

    fails_and_leaves_nothing(model, IntegrityError, r"model\.layers\.1\.mlp\.up_proj\.weight")


def test_a_weight_beyond_f16_is_refused_for_f16_and_taken_for_bf16(model: Path) -> None:
    change_tensor(model, "lm_head.weight", lambda values: values.__setitem__(5, 0x4800))

    fails_and_leaves_nothing(model, UsageError, "beyond the range of F16", "F16")
    quantize(files_of(model), "BF16", model / "m.gguf", name="m", progress=Silent())


def test_a_shard_that_shrinks_while_it_is_read_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrink_after_planning(*args: object, **named: object) -> Plan:
        plan = make_plan(*args, **named)  # type: ignore[arg-type]
        shard = model / "model.safetensors"
        with shard.open("r+b") as stream:
            stream.truncate(shard.stat().st_size - 1000)
        return plan

    monkeypatch.setattr("packager.quantize.pipeline.make_plan", shrink_after_planning)
    fails_and_leaves_nothing(model, TruncatedError, "ends within the tensor")


def test_a_pickle_named_as_safetensors_is_unsafe_content(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x80\x02}q\x00." + bytes(range(100)))

    fails_and_leaves_nothing(model, UnsafeContentError, "pickle")


def test_a_source_without_weights_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()

    fails_and_leaves_nothing(model, UsageError, "model.safetensors")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    files = files_of(REFERENCES / "qwen3")
    gone = next(name for name in files if name.startswith("model-00002"))
    del files[gone]

    with pytest.raises(MalformedError, match=gone):
        quantize(files, "Q8_0", tmp_path / "m.gguf", name="m", progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensor_is_named(model: Path) -> None:
    tensors = read_tensors(model / "model.safetensors")
    del tensors["model.layers.2.mlp.down_proj.weight"]
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, MalformedError, r"lacks .*layers\.2\.mlp\.down_proj")


def test_a_tensor_that_the_architecture_does_not_have_is_refused(model: Path) -> None:
    tensors = read_tensors(model / "model.safetensors")
    tensors["score.weight"] = ("BF16", (1, 256), bytes(512))
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, UsageError, "score.weight")


def test_a_tensor_of_another_shape_than_configured_is_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 768}))

    fails_and_leaves_nothing(model, MalformedError, "shape")


def test_weights_of_eight_bits_are_refused(model: Path) -> None:
    tensors = read_tensors(model / "model.safetensors")
    tensors["lm_head.weight"] = ("F8_E4M3", (288, 256), bytes(288 * 256))
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, UsageError, "F8_E4M3")


def test_a_folder_that_is_not_there_is_the_hosts_refusal(model: Path) -> None:
    with pytest.raises(HostError, match="no such file"):
        quantize(files_of(model), "F16", model / "no" / "m.gguf", name="m", progress=Silent())


def test_a_cancelled_run_leaves_nothing(model: Path) -> None:
    class Impatient(Silent):
        pressed = False

        @contextmanager
        def task(self, *_: object, **__: object) -> Iterator[Impatient]:
            yield self

        def advance(self, amount: int) -> None:  # noqa: ARG002
            if not self.pressed:  # once: the next would be for whoever runs the tests
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    out = model.parent / "out" / "model.gguf"
    out.parent.mkdir()

    with pytest.raises(KeyboardInterrupt):
        quantize(files_of(model), "Q8_0", out, name="m", progress=Impatient())
    assert list(out.parent.iterdir()) == []


NO_ROOM = """
import resource, sys
from pathlib import Path
from packager.errors import NoSpaceError
from packager.progress import Silent
from packager.quantize.pipeline import quantize
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
try:
    quantize(files, "Q8_0", Path(sys.argv[2]), name="m", progress=Silent())
except NoSpaceError as error:
    sys.exit(error.exit_code)
"""


def test_99_no_room_for_the_file_is_found_first_and_leaves_nothing(model: Path) -> None:
    out = model.parent / "out" / "model.gguf"
    out.parent.mkdir()

    ended = subprocess.run([sys.executable, "-c", NO_ROOM, str(model), str(out)], check=False)

    assert ended.returncode == 13
    assert list(out.parent.iterdir()) == []


def test_an_unknown_type_is_refused_with_the_known_ones(model: Path) -> None:
    with pytest.raises(UsageError, match="Q9_K") as caught:
        quantize(files_of(model), "Q9_K", model / "m.gguf", name="m", progress=Silent())
    assert "Q4_K_M" in str(caught.value.hint)


KILLED = """
import os, signal, sys
from pathlib import Path
from packager.progress import Silent
from packager.quantize import worker
from packager.quantize.pipeline import quantize_all
from packager.quantize.wanted import Wanted
done = []
write = worker.write_all
def write_and_die(*args):
    write(*args)
    done.append(args)
    if len(done) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
worker.write_all = write_and_die
files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
wanted = {Path(sys.argv[2]) / f"{name}.gguf": Wanted.of(name) for name in ("Q8_0", "Q4_K_M")}
quantize_all(files, wanted, name="m", progress=Silent())
"""


def test_a_run_that_is_killed_leaves_nothing_under_a_files_name(model: Path) -> None:
    out = model.parent / "out"
    out.mkdir()

    ended = subprocess.run([sys.executable, "-c", KILLED, str(model), str(out)], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert {path.name[:5] for path in out.iterdir()} == {".tmp-"}
