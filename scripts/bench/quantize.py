"""Converting a whole model, beside ``cp`` and llama.cpp's own way; all in one run, on one disk.

    python scripts/bench/quantize.py [--size 2GiB] [--types Q4_K_M,Q8_0,F16] [--runs 3]
        [--llama-cpp DIR --llama-build DIR --llama-python PYTHON]

Makes a Llama of random bfloat16 weights, page cache warm, and prints the median seconds of each
step, its peak memory and the median of its ratios to what ran beside it in the same round.
llama.cpp's way is its converter, which writes a BF16 file, and then ``llama_model_quantize``, as
llama-quantize calls it. That takes llama.cpp's sources (the folder ``vendor/llama.cpp`` of
llama-cpp-python's sdist), a build of them with ``libllama.so`` in ``bin``, and a Python with torch,
transformers and sentencepiece.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from packager.format.sizes import format_size, parse_size
from packager.quantize.types import file_type

TOKENIZER = Path(__file__).parents[2] / "tests" / "references" / "llama2"
WIDTH, INNER, HEADS, KEYS, VOCABULARY = 2048, 5632, 32, 4, 32000
OURS = """
import sys
from pathlib import Path
from packager.progress import Silent
from packager.quantize.pipeline import quantize
source, type_name, out = sys.argv[1:]
files = {path.name: path for path in Path(source).iterdir()}
quantize(files, type_name, Path(out), name="bench", progress=Silent())
"""
THEIRS = """
#include "llama.h"
#include <stdlib.h>
int main(int count, char **words) {
    llama_backend_init();
    struct llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = atoi(words[3]);
    params.nthread = atoi(words[4]);
    return llama_model_quantize(words[1], words[2], &params) || count != 5;
}
"""


@dataclass(frozen=True, eq=False)
class Step:
    """A command that writes the file ``made``."""

    name: str
    words: Sequence[str]
    made: str


@dataclass
class Timings:
    """Seconds of each run of a step, and the most memory that it took, in bytes."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp's sources, a build of them, and a Python that runs its converter."""

    sources: Path
    build: Path
    python: Path

    def compile(self, place: Path) -> Path:
        """A program that calls ``llama_model_quantize``."""
        (place / "peer.c").write_text(THEIRS)
        libraries = self.build.absolute() / "bin"
        includes = [f"-I{self.sources / name}" for name in ("include", "ggml/include")]
        words = ["cc", "-O2", *includes, "peer.c", "-o", "peer", f"-L{libraries}", "-lllama"]
        words += [f"-Wl,-rpath,{libraries}", f"-Wl,-rpath-link,{libraries}"]
        subprocess.run(words, cwd=place, check=True)
        return place / "peer"


def main() -> None:
    """Make the model, run every step and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("2GiB"))
    parser.add_argument("--types", default="Q4_K_M,Q8_0,F16")
    parser.add_argument("--dir", type=Path, default=Path.cwd() / "bench")
    parser.add_argument("--runs", type=int, default=3)
    for name in ("--llama-cpp", "--llama-build", "--llama-python"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    peer = None
    if arguments.llama_cpp:
        peer = LlamaCpp(arguments.llama_cpp, arguments.llama_build, arguments.llama_python)
    bench = Bench(arguments.dir.absolute(), arguments.runs, peer)
    bench.prepare(arguments.size)
    bench.tell(arguments.types.split(","))


class Bench:
    """One place, one model, and the steps on it."""

    def __init__(self, place: Path, runs: int, peer: LlamaCpp | None) -> None:
        self.place, self.runs, self.peer = place, runs, peer
        self.model = place / "model"

    def prepare(self, size: int) -> None:
        """Make the model, of about ``size`` bytes."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.model.mkdir(parents=True)
        embedding = 2 * VOCABULARY * WIDTH * 2
        layer = 2 * sum(int(np.prod(shape)) for _, shape in layer_shapes(0))
        layers = max(round((size - embedding) / layer), 1)
        # In a process of its own: a child's peak memory begins with its parent's.
        maker = multiprocessing.Process(target=write_model, args=(self.model, layers))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the model could not be written")

    def tell(self, types: Sequence[str]) -> None:
        """Measure, and print. All steps are run in turn, over and over."""
        copy = Step("cp", ["sh", "-c", "cp model/model.safetensors copy && sync copy"], "copy")
        ours = [Step(name, self.our_words(name), "ours.gguf") for name in types]
        steps = [copy, *ours, *self.peer_steps(types)]
        timings = {step: Timings() for step in steps}
        for _ in range(self.runs):
            for step in steps:
                self.time(step, timings[step])
        by_name = {step.name: timing for step, timing in timings.items()}
        size = sum(path.stat().st_size for path in self.model.iterdir())
        cores = len(os.sched_getaffinity(0))
        print(f"{format_size(size)} of bfloat16, {cores} cores, median of {self.runs}\n")
        print("| type | s | peak memory | beside | s | ratio |\n|---|---|---|---|---|---|")
        for name in types:
            self.row(name, by_name[name], "`cp` + `sync`", by_name["cp"].seconds)
            if self.peer:
                self.peer_row(name, by_name)

    def our_words(self, type_name: str) -> list[str]:
        return [sys.executable, "-c", OURS, str(self.model), type_name, "ours.gguf"]

    def peer_steps(self, types: Sequence[str]) -> list[Step]:
        """llama.cpp's: to a BF16 file, which stays, and from there to each type."""
        if not self.peer:
            return []
        cores = str(len(os.sched_getaffinity(0)))
        program = str(self.peer.compile(self.place))
        words = [self.peer.python, self.peer.sources / "convert_hf_to_gguf.py", "--outtype", "bf16"]
        words += ["--outfile", "bf16.gguf", self.model]
        steps = [Step("convert", [*map(str, words)], "bf16.gguf")]
        for name in types:
            number = str(file_type(name).number)
            words = [program, "bf16.gguf", "theirs.gguf", number, cores]
            steps.append(Step(f"theirs {name}", words, "theirs.gguf"))
        return steps

    def peer_row(self, name: str, by_name: dict[str, Timings]) -> None:
        convert, theirs = by_name["convert"], by_name[f"theirs {name}"]
        memory = format_size(max(convert.memory, theirs.memory))
        what = f"llama.cpp, {memory}: {convert.median:.1f} s to BF16, {theirs.median:.1f} s on"
        both = [sum(pair) for pair in zip(convert.seconds, theirs.seconds, strict=True)]
        self.row(name, by_name[name], what, both)

    def time(self, step: Step, timings: Timings) -> None:
        """Run a step with all earlier writes on the disk, until its own are there, too."""
        (self.place / step.made).unlink(missing_ok=True)
        os.sync()
        begun = time.monotonic()
        memory = self.run(step.words)
        sync(self.place / step.made)
        timings.seconds.append(time.monotonic() - begun)
        timings.memory = max(memory, timings.memory)

    def run(self, words: Sequence[str]) -> int:
        """Run a command in the place; returns its peak memory in bytes."""
        log = self.place / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(words, cwd=self.place, stdout=stream, stderr=stream)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{json.dumps(words[:2])} failed: {log.read_text()[-500:]}")
        return usage.ru_maxrss << 10

    def row(self, name: str, ours: Timings, what: str, theirs: Sequence[float]) -> None:
        """One line: how many times as long as theirs ours takes, or the other way round."""
        pairs = zip(ours.seconds, theirs, strict=True)
        ratio = statistics.median(our / their for our, their in pairs)
        words = f"{ratio:.2f}x" if ratio >= 1 else f"{1 / ratio:.1f} times as fast"
        print(
            f"| {name} | {ours.median:.2f} | {format_size(ours.memory)} | {what} "
            f"| {statistics.median(theirs):.2f} | {words} |",
            flush=True,
        )


def sync(path: Path) -> None:
    """Have ``path`` on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def layer_shapes(layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """transformers' names and shapes of a Llama's layer."""
    keys = WIDTH // HEADS * KEYS
    block = f"model.layers.{layer}."
    yield f"{block}input_layernorm.weight", (WIDTH,)
    yield f"{block}post_attention_layernorm.weight", (WIDTH,)
    for part, rows in {"q": WIDTH, "k": keys, "v": keys, "o": WIDTH}.items():
        yield f"{block}self_attn.{part}_proj.weight", (rows, WIDTH)
    yield f"{block}mlp.gate_proj.weight", (INNER, WIDTH)
    yield f"{block}mlp.up_proj.weight", (INNER, WIDTH)
    yield f"{block}mlp.down_proj.weight", (WIDTH, INNER)


def write_model(folder: Path, layers: int) -> None:
    """Write the checkpoint: a tokenizer and random weights."""
    settings = json.loads((TOKENIZER / "config.json").read_text())
    settings |= {
        "attention_bias": False,
        "head_dim": WIDTH // HEADS,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": KEYS,
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "lm_head.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(layers):
        shapes |= layer_shapes(layer)
    write_weights(folder / "model.safetensors", shapes)


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of normally distributed bfloat16."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    random = np.random.default_rng(1)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            values = random.standard_normal(shape, np.float32) * np.float32(0.02)
            stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())


if __name__ == "__main__":
    main()
