"""How fast weights become each type on one thread: ours beside ggml's own, taking turns.

    python scripts/bench/kernels.py [--runs 7] [--size 8MiB] [--vectors AVX2]

Prints MB of 16-bit input per second of a thread's CPU time (the best of all runs), without and
with an importance matrix. Every pair of results is compared: a difference ends the run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np

from packager.format.ggml_types import GgmlType
from packager.format.sizes import parse_size
from packager.quantize.kernels import Kernels, load_kernels
from packager.quantize.simd.compiled import KINDS, load_compiled
from packager.quantize.simd.compiling import VECTORS

COLUMNS = 4096


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--size", type=parse_size, default=parse_size("8MiB"))
    by_name = {vectors.name: vectors for vectors in VECTORS}
    parser.add_argument("--vectors", choices=by_name, help="instead of the widest of this CPU")
    arguments = parser.parse_args()
    ggml = load_kernels().library
    kernels = Kernels(ggml, load_compiled(ggml, by_name.get(arguments.vectors)))
    random = np.random.default_rng(1)
    rows = arguments.size // 2 // COLUMNS
    values = random.standard_normal((rows, COLUMNS), np.float32) * np.float32(0.02)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    matrix = random.random(COLUMNS, np.float32) ** 2
    print(f"kernels: {kernels.compiled.summary}\n")
    print("| type | matrix | ours, MB/s | ggml's, MB/s | ratio |\n|---|---|---|---|---|")
    for kind in KINDS:
        for weights in (None, matrix):
            pair = Pair(kernels, kind, values, weights)
            ours, ggml = pair.speeds(arguments.runs)
            print(
                f"| {kind.name} | {'no' if weights is None else 'yes'} | {ours:,.0f} | {ggml:,.0f} "
                f"| {ours / ggml:.1f} |",
                flush=True,
            )


class Pair:
    """The two ways to quantize the same values to the same type."""

    def __init__(
        self, kernels: Kernels, kind: GgmlType, values: np.ndarray, matrix: np.ndarray | None
    ) -> None:
        self.kernels, self.kind, self.values = kernels, kind, values
        self.matrix = None if matrix is None else matrix.ctypes.data
        self.ours = np.zeros(kind.row_size(values.size), np.uint8)
        self.theirs = np.zeros_like(self.ours)

    def speeds(self, runs: int) -> tuple[float, float]:
        """MB/s of ours and of ggml's."""
        turns = [(cpu_seconds(self.run_ours), cpu_seconds(self.run_ggml)) for _ in range(runs)]
        if not np.array_equal(self.ours, self.theirs):
            sys.exit(f"{self.kind.name}: other bytes than ggml's")
        ours, ggml = (min(seconds) for seconds in zip(*turns, strict=True))
        size = self.values.size * 2 / 1e6
        return size / ours, size / ggml

    def run_ours(self) -> None:
        rows, columns = self.values.shape
        self.kernels.quantize(
            self.kind,
            self.values.ctypes.data,
            self.ours.ctypes.data,
            rows=rows,
            columns=columns,
            matrix=self.matrix,
        )

    def run_ggml(self) -> None:
        rows, columns = self.values.shape
        self.kernels.library.ggml_quantize_chunk(
            self.kind.number,
            self.values.ctypes.data,
            self.theirs.ctypes.data,
            0,
            rows,
            columns,
            self.matrix,
        )


def cpu_seconds(step: Callable[[], None]) -> float:
    """What ``step`` takes of this thread's time: others may use the machine meanwhile."""
    begun = time.thread_time()
    step()
    return time.thread_time() - begun


if __name__ == "__main__":
    main()
