"""The pass over the weights: the same bytes always, or nothing at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.checkpoints import REFERENCES, encode, files_of, safetensors_bytes, write_llama
from support.watching import Watching

from packager.errors import (
    AirpackError,
    HostError,
    IntegrityError,
    MalformedError,
    TruncatedError,
    UnsafeContentError,
    UsageError,
)
from packager.format.gguf_header import parse_header
from packager.progress import Silent
from packager.quantize import plan as planning
from packager.quantize import worker
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.pipeline import quantize, quantize_all
from packager.quantize.types import file_type
from packager.quantize.wanted import Wanted


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model")


def change_tensor(model: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Rewrite the shard of ``model`` with one tensor changed."""
    tensors = {}
    for tensor in source_tensors(model):
        tensors[tensor[0]] = tensor[1]
    values = np.frombuffer(tensors[name][2], "<u2").copy()
    change(values)
    tensors[name] = (*tensors[name][:2], values.tobytes())
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))


def source_tensors(model: Path) -> list[tuple[str, tuple[str, tuple[int, ...], bytes]]]:
    data = (model / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    return [
        (
            name,
            (
                entry["dtype"],
                tuple(entry["shape"]),
                data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]],
            ),
        )
        for name, entry in header.items()
    ]


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


def test_the_bytes_do_not_depend_on_threads_nor_on_the_run(model: Path, tmp_path: Path) -> None:
    outs = []
    for number, threads in enumerate([1, 1, 2, 7]):
        out = tmp_path / f"{number}.gguf"
        quantize(files_of(model), "Q4_K_M", out, name="m", threads=threads, progress=Silent())
        outs.append(out.read_bytes())

    assert len(set(outs)) == 1


def test_shards_under_any_local_name_give_the_bytes_of_one_file(tmp_path: Path) -> None:
    """The cache is content-addressed: only the names in the repository count."""
    files = files_of(REFERENCES / "qwen3")
    cached = {}
    for number, (name, path) in enumerate(files.items()):
        cached[name] = tmp_path / f"blob{number}"
        cached[name].write_bytes(path.read_bytes())

    first = quantize(files, "Q8_0", tmp_path / "a.gguf", name="q", progress=Silent())
    again = quantize(cached, "Q8_0", tmp_path / "b.gguf", name="q", progress=Silent())

    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert first == again


def test_the_result_tells_what_was_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    watched = Watching()

    result = quantize(files_of(model), "Q8_0", out, name="a name", progress=watched)

    assert out.stat().st_size == result.size
    with out.open("rb") as stream:
        header = parse_header(stream, file_size=result.size, what="m.gguf")
    assert header.metadata["general.name"] == "a name"
    assert header.metadata["general.file_type"] == 7
    assert [(t.name, t.type, t.size) for t in result.tensors] == [
        (t.name, t.type.name, t.size) for t in header.tensors
    ]
    assert result.parameters == header.parameters
    assert result.fallbacks == ()
    total = sum(len(data) for _, (_, _, data) in source_tensors(model))
    assert [(task.total, task.done) for task in watched.tasks] == [(total, total)]


def test_the_size_is_known_before_a_weight_is_read(model: Path, tmp_path: Path) -> None:
    plan = planning.make_plan(files_of(model), Wanted.of("Q5_K_M"), name="m")

    result = quantize(files_of(model), "Q5_K_M", tmp_path / "m.gguf", name="m", progress=Silent())

    assert plan.size == result.size == (tmp_path / "m.gguf").stat().st_size


def test_rows_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", hidden_size=96, num_attention_heads=4)

    result = quantize(files_of(model), "Q4_K_S", tmp_path / "m.gguf", name="m", progress=Silent())

    assert ("blk.0.attn_q.weight", "Q4_K", "Q5_0") in result.fallbacks
    assert {fallback.name for fallback in result.fallbacks} >= {"token_embd.weight"}


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
    plan_made = planning.make_plan

    def shrink_after_planning(*args: object, **named: object) -> planning.Plan:
        plan = plan_made(*args, **named)  # type: ignore[arg-type]
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
    tensors = dict(source_tensors(model))
    del tensors["model.layers.2.mlp.down_proj.weight"]
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, MalformedError, r"lacks .*layers\.2\.mlp\.down_proj")


def test_a_tensor_that_the_architecture_does_not_have_is_refused(model: Path) -> None:
    tensors = dict(source_tensors(model))
    tensors["score.weight"] = ("BF16", (1, 256), bytes(512))
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, UsageError, "score.weight")


def test_a_tensor_of_another_shape_than_configured_is_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 768}))

    fails_and_leaves_nothing(model, MalformedError, "shape")


def test_weights_of_eight_bits_are_refused(model: Path) -> None:
    tensors = dict(source_tensors(model))
    tensors["lm_head.weight"] = ("F8_E4M3", (288, 256), bytes(288 * 256))
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    fails_and_leaves_nothing(model, UsageError, "F8_E4M3")


def test_leftovers_of_old_transformers_and_a_tied_output_are_left_out(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", tie_word_embeddings=True)
    tensors = dict(source_tensors(model))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = (
        "F32",
        (32,),
        encode(np.ones(32, np.float32), "F32"),
    )
    (model / "model.safetensors").write_bytes(safetensors_bytes(tensors))

    result = quantize(files_of(model), "F16", tmp_path / "m.gguf", name="m", progress=Silent())

    assert "output.weight" not in {tensor.name for tensor in result.tensors}
    assert len(result.tensors) == 2 + 3 * 9


def test_a_folder_that_is_not_there_is_the_hosts_refusal(model: Path) -> None:
    with pytest.raises(HostError, match="no such file"):
        quantize(files_of(model), "F16", model / "no" / "m.gguf", name="m", progress=Silent())


def test_a_cancelled_run_leaves_nothing(model: Path) -> None:
    class Impatient(Silent):
        @contextmanager
        def task(self, *_: object, **__: object) -> Iterator[Impatient]:
            yield self

        def advance(self, amount: int) -> None:  # noqa: ARG002
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


@pytest.mark.parametrize("name", ["my-Phi3-merge", "PHI-3 mini", "x-modern-bert"])
def test_a_name_that_llama_cpp_would_take_for_another_model_is_written_apart(
    name: str, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.gguf"

    quantize(files_of(model), "Q8_0", out, name=name, progress=Silent())

    written = gguf.GGUFReader(out).fields["general.name"].contents().lower()
    assert not any(trap in written for trap in ("phi3", "phi-3", "modern-bert"))


def test_a_sliding_window_that_is_not_carried_over_is_noted(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", sliding_window=64)
    watched = Watching()

    quantize(files_of(model), "Q8_0", tmp_path / "m.gguf", name="m", progress=watched)

    assert any("sliding window of 64" in note for note in watched.notes)


def three_files(folder: Path) -> dict[Path, Wanted]:
    """A file of plain floats, one of blocks of 32, and a mixture."""
    folder.mkdir(exist_ok=True)
    return {folder / f"{name}.gguf": Wanted.of(name) for name in ("BF16", "Q8_0", "Q4_K_M")}


def test_files_made_together_are_those_made_alone_and_the_source_is_read_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = three_files(tmp_path / "together")
    read = []
    monkeypatch.setattr(
        worker,
        "read_all",
        lambda descriptor, view, *place, whole=worker.read_all: (
            read.append(len(view)),
            whole(descriptor, view, *place),
        ),
    )
    watched = Watching()

    results = quantize_all(files_of(model), wanted, name="m", progress=watched)

    total = sum(len(data) for _, (_, _, data) in source_tensors(model))
    assert sum(read) == total
    assert [(task.total, task.done) for task in watched.tasks] == [(total, total)]
    for out, file in wanted.items():
        alone = tmp_path / "alone.gguf"
        result = quantize(files_of(model), file.kind.name, alone, name="m", progress=Silent())
        assert out.read_bytes() == alone.read_bytes()
        assert results[out] == result


def test_what_one_of_several_files_cannot_hold_leaves_none_of_them(model: Path) -> None:
    change_tensor(model, "lm_head.weight", lambda values: values.__setitem__(5, 0x4800))
    folder = model.parent / "out"
    wanted = {**three_files(folder), folder / "F16.gguf": Wanted.of("F16")}

    with pytest.raises(UsageError, match="beyond the range of F16"):
        quantize_all(files_of(model), wanted, name="m", progress=Silent())

    assert list(folder.iterdir()) == []


def test_a_second_file_without_room_leaves_none_of_them(model: Path) -> None:
    folder = model.parent / "out"
    wanted = {**three_files(folder), folder / "no" / "F16.gguf": Wanted.of("F16")}

    with pytest.raises(HostError, match="no such file"):
        quantize_all(files_of(model), wanted, name="m", progress=Silent())

    assert list(folder.iterdir()) == []


def test_many_types_are_counted_where_a_bar_has_no_room_to_name_them(
    model: Path, tmp_path: Path
) -> None:
    watched = Watching()
    types = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
    wanted = {tmp_path / name: Wanted.of(name) for name in types}

    quantize_all(files_of(model), wanted, name="m", progress=watched)

    assert [task.label for task in watched.tasks] == ["quantize 5 types"]


def test_nothing_wanted_is_nothing_done(model: Path) -> None:
    assert quantize_all(files_of(model), {}, name="m", progress=Silent()) == {}


def test_two_runs_at_once_share_ggmls_tables_and_neither_frees_them_early(
    model: Path, tmp_path: Path
) -> None:
    """The first to end would pull the tables from under the other."""
    ones = {
        name: TensorImportance(np.ones((1, columns), np.float32), np.ones(1, np.int64))
        for layer in range(3)
        for part, columns in PARTS
        for name in (f"blk.{layer}.{part}.weight",)
    }
    wanted = Wanted(file_type("IQ2_XXS"), matrix=ImportanceMatrix(ones, (), 1, 512))

    def run(number: int) -> bytes:
        out = tmp_path / f"{number}.gguf"
        quantize_all(files_of(model), {out: wanted}, name="m", threads=1, progress=Silent())
        return out.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(run, range(4)))) == 1


PARTS = (
    *((part, 256) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up")),
    ("ffn_down", 512),
)

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


MEASURE = """
import resource, sys
from pathlib import Path
from packager.progress import Silent
from packager.quantize.pipeline import quantize_all
from packager.quantize.wanted import Wanted
files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
wanted = {Path(sys.argv[2]) / name: Wanted.of(name) for name in sys.argv[3:]}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize_all(files, wanted, name="m", threads=2, progress=Silent())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("types", [["Q8_0"], ["Q8_0", "BF16", "Q4_0", "F16"]])
def test_memory_grows_neither_with_the_model_nor_with_the_files(
    types: list[str], tmp_path: Path
) -> None:
    """Three tensors of 33 MB (67 MB each as float32) pass through buffers of half of one."""
    model = write_llama(tmp_path / "model", num_hidden_layers=1, intermediate_size=65536)

    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(tmp_path), *types],
        capture_output=True,
        check=True,
    )

    assert int(answer.stdout) * 1024 < 60_000_000
