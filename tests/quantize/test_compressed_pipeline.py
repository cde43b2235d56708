"""The pass over a shard for compressed-tensors: the same bytes always, or nothing at all."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import (
    REFERENCES,
    files_of,
    read_source,
    safetensors_bytes,
    write_llama,
)
from support.compressed import dequantize, read_safetensors
from support.watching import WatchedTask

from packager.errors import AirpackError, HostError, IntegrityError, NoSpaceError, TruncatedError
from packager.quantize.compressed import pipeline
from packager.quantize.compressed.pipeline import write_shards
from packager.quantize.compressed.plan import PlannedVariant, plan_variant
from packager.quantize.compressed.schemes import SCHEMES, find_scheme

LARGEST_ERROR = {"FP8_DYNAMIC": 0.03, "W8A8": 0.012, "W8A16": 0.0075, "W4A16": 0.12}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def make(
    model: Path, out: Path, schemes: Sequence[str], *, threads: int | None = None
) -> dict[str, PlannedVariant]:
    """Each scheme in a folder of its name in ``out``, all in one pass over each shard."""
    plans = {name: plan_variant(files_of(model), find_scheme(name)) for name in schemes}
    passes: dict[str, dict[Path, pipeline.PlannedShard]] = {}
    for name, plan in plans.items():
        (out / name).mkdir(parents=True)
        for shard in plan.shards:
            passes.setdefault(shard.name, {})[out / name / shard.name] = shard
    for shards in passes.values():
        write_shards(shards, threads=threads, task=WatchedTask("", 0, 0))
    return plans


def read(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_safetensors(path).items()
    }


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_what_is_written_is_the_model_within_the_error_of_the_scheme(
    tmp_path: Path, dtype: str
) -> None:
    model = write_llama(tmp_path / "model", dtype=dtype)
    source = read_source(model)

    plans = make(model, tmp_path, list(SCHEMES))

    for name, plan in plans.items():
        found = read(tmp_path / name)
        assert len(plan.choice.quantized) == 21
        for tensor, weights in source.items():
            if tensor not in plan.choice.quantized:
                assert found[tensor][0] == dtype
                assert np.array_equal(found[tensor][1], weights)
                continue
            values = dequantize(found, tensor.removesuffix(".weight"), find_scheme(name).bits)
            assert found[f"{tensor}_scale"][0] == dtype
            assert values.shape == weights.shape
            error = np.sqrt(np.mean((values - weights) ** 2) / np.mean(weights**2))
            assert error <= LARGEST_ERROR[name]


@pytest.mark.parametrize(
    ("scheme", "tensors"),
    [
        ("FP8_DYNAMIC", {"weight": ("F8_E4M3", (512, 256)), "weight_scale": ("BF16", (512, 1))}),
        ("W8A8", {"weight": ("I8", (512, 256)), "weight_scale": ("BF16", (512, 1))}),
        (
            "W8A16",
            {
                "weight_packed": ("I32", (512, 64)),
                "weight_scale": ("BF16", (512, 2)),
                "weight_shape": ("I64", (2,)),
            },
        ),
        (
            "W4A16",
            {
                "weight_packed": ("I32", (512, 32)),
                "weight_scale": ("BF16", (512, 2)),
                "weight_shape": ("I64", (2,)),
            },
        ),
    ],
)
def test_the_tensors_of_a_layer_are_those_of_the_format(
    model: Path, tmp_path: Path, scheme: str, tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    make(model, tmp_path, [scheme])

    prefix = "model.layers.0.mlp.up_proj."
    found = {
        name.removeprefix(prefix): (dtype, values.shape)
        for name, (dtype, values) in read(tmp_path / scheme).items()
        if name.startswith(prefix)
    }
    assert found == tensors


def test_the_bytes_depend_neither_on_threads_nor_on_what_is_made_beside(
    model: Path, tmp_path: Path
) -> None:
    schemes = list(SCHEMES)
    make(model, tmp_path / "together", schemes, threads=3)

    for name in schemes:
        make(model, tmp_path / f"alone {name}", [name], threads=1)
        one, other = (
            tmp_path / place / name / "model.safetensors" for place in ("together", f"alone {name}")
        )
        assert one.read_bytes() == other.read_bytes()


def test_shards_give_the_tensors_of_one_file(tmp_path: Path) -> None:
    """The references are small enough for shards of a few tensors."""
    model = REFERENCES / "qwen3"
    tensors = read_source(model)
    single = tmp_path / "single"
    single.mkdir()
    for name, path in files_of(model).items():
        if "safetensors" not in name:
            (single / name).write_bytes(path.read_bytes())
    (single / "model.safetensors").write_bytes(
        safetensors_bytes(
            {
                name: ("BF16", values.shape, (values.view(np.uint32) >> 16).astype("<u2").tobytes())
                for name, values in tensors.items()
            }
        )
    )

    plans = make(model, tmp_path / "sharded", ["FP8_DYNAMIC"])
    make(single, tmp_path / "one", ["FP8_DYNAMIC"])

    sharded, one = (
        read(tmp_path / "sharded" / "FP8_DYNAMIC"),
        read(tmp_path / "one" / "FP8_DYNAMIC"),
    )
    assert len(plans["FP8_DYNAMIC"].shards) == 4
    assert sharded.keys() == one.keys()
    for name, (dtype, values) in sharded.items():
        assert (dtype, values.tobytes()) == (one[name][0], one[name][1].tobytes())


def test_the_file_is_one_that_the_library_of_safetensors_opens(model: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    make(model, tmp_path, ["W4A16"])

    with safe_open(tmp_path / "W4A16" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        name = "model.layers.2.mlp.down_proj.weight"
        assert file.get_tensor(f"{name}_shape").tolist() == [256, 512]
        assert file.get_tensor(f"{name}_packed").shape == (256, 64)


def test_progress_counts_every_byte_of_the_source(model: Path, tmp_path: Path) -> None:
    (shard,) = plan_variant(files_of(model), find_scheme("W4A16")).shards
    task = WatchedTask("", shard.source_size, 0)

    write_shards({tmp_path / "a": shard, tmp_path / "b": shard}, task=task)

    header = struct.unpack("<Q", (model / "model.safetensors").read_bytes()[:8])[0]
    assert task.done == task.total
    assert task.done == (model / "model.safetensors").stat().st_size - 8 - header


def fails_and_leaves_nothing(model: Path, out: Path, error: type[AirpackError], match: str) -> None:
    (shard,) = plan_variant(files_of(model), find_scheme("FP8_DYNAMIC")).shards
    out.mkdir()
    with pytest.raises(error, match=match):
        write_shards({out / "a": shard, out / "b": shard}, task=WatchedTask("", 0, 0))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0])
def test_74_infinity_and_nan_are_refused_with_the_tensors_name(
    model: Path, tmp_path: Path, bits: int
) -> None:
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    name = "model.layers.1.self_attn.v_proj.weight"
    offset = begin + json.loads(data[8:begin])[name]["data_offsets"][1] - 2
    data[offset : offset + 2] = struct.pack("<H", bits)
    path.write_bytes(data)

    match = r"model\.safetensors: the tensor model\.layers\.1\.self_attn\.v_proj\.weight holds inf"
    fails_and_leaves_nothing(model, tmp_path / "out", IntegrityError, match)


def test_a_shard_that_shrinks_while_it_is_read_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model / "model.safetensors"
    reserve = pipeline.os.posix_fallocate

    def shrink(*arguments: int) -> None:
        reserve(*arguments)
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 2)

    monkeypatch.setattr(pipeline.os, "posix_fallocate", shrink)
    fails_and_leaves_nothing(model, tmp_path / "out", TruncatedError, "ends within the tensor")


def test_a_folder_that_is_not_there_is_the_hosts_refusal(model: Path, tmp_path: Path) -> None:
    (shard,) = plan_variant(files_of(model), find_scheme("W8A8")).shards
    with pytest.raises(HostError, match="no such file"):
        write_shards({tmp_path / "no" / "m": shard}, task=WatchedTask("", 0, 0))


def test_a_cancelled_pass_leaves_nothing(model: Path, tmp_path: Path) -> None:
    class Impatient:
        pressed = False

        def advance(self, amount: int) -> None:  # noqa: ARG002
            if not self.pressed:  # once: the next would be for whoever runs the tests
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    (shard,) = plan_variant(files_of(model), find_scheme("W8A8")).shards
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_shards({out / "m": shard}, task=Impatient())
    assert list(out.iterdir()) == []


RUN = """
import resource, sys
from pathlib import Path
from packager.progress import Silent
from packager.errors import NoSpaceError
from packager.quantize.compressed.pipeline import write_shards
from packager.quantize.compressed.plan import plan_variant
from packager.quantize.compressed.schemes import find_scheme
files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
shards = {
    Path(sys.argv[2]) / name: plan_variant(files, find_scheme(name)).shards[0]
    for name in sys.argv[4:]
}
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with Silent().task("", 0) as task:
        write_shards(shards, threads=2, task=task)
except NoSpaceError as error:
    sys.exit(error.exit_code)
assert not {"torch", "xllamacpp", "gguf"} & set(sys.modules)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_99_no_room_for_a_file_is_found_first_and_leaves_nothing(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(model), str(out), "1500000", "W4A16", "W8A8"], check=False
    )

    assert ended.returncode == NoSpaceError.exit_code
    assert list(out.iterdir()) == []


def test_memory_grows_neither_with_the_model_nor_with_the_files(tmp_path: Path) -> None:
    """Three tensors of 33 MB pass through buffers of a megabyte."""
    model = write_llama(tmp_path / "model", num_hidden_layers=1, intermediate_size=65536)

    answer = subprocess.run(
        [sys.executable, "-c", RUN, str(model), str(tmp_path), "0", *SCHEMES],
        capture_output=True,
        check=True,
    )

    assert int(answer.stdout) * 1024 < 30_000_000
