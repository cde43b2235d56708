"""What each type costs a model in quality, with and without an importance matrix.

    python scripts/bench/quality.py [--model FOLDER] [--text FILE] [--types Q8_0,Q4_K_M,...]

The matrix is gathered on the first quarter of the text, and the quality measured on the rest.
Prints a table: size, perplexity, its change, mean divergence and the share of equal top tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packager.connected.variants.calibrate import calibrate
from packager.connected.variants.quality import Baseline, measure_quality
from packager.format.quality import MILLIONTHS, NANONATS, Quality
from packager.progress import Silent
from packager.quantize.imatrix import ImportanceMatrix
from packager.quantize.mix import Overrides, always_needs_matrix
from packager.quantize.pipeline import quantize_all
from packager.quantize.types import file_type
from packager.quantize.wanted import Wanted

DEMO = Path(__file__).parents[2] / "packager" / "demo"
TYPES = (
    "F16,Q8_0,Q6_K,Q5_K_M,Q5_K_S,Q4_K_M,Q4_K_S,Q4_0,IQ4_NL,IQ4_XS,Q3_K_L,Q3_K_M,Q3_K_S,IQ3_M,"
    "IQ3_XXS,Q2_K,IQ2_M,IQ2_XS,IQ2_XXS,IQ1_M,IQ1_S,TQ2_0"
)


def main() -> None:
    """Quantize, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO / "tiny-kjv")
    parser.add_argument("--text", type=Path, default=DEMO / "held-out.txt")
    parser.add_argument("--types", default=TYPES)
    arguments = parser.parse_args()
    text = arguments.text.read_text("utf-8")
    sources = {path.name: path for path in arguments.model.iterdir()}
    with tempfile.TemporaryDirectory() as folder:
        tell(sources, text, arguments.types.split(","), Path(folder))


def tell(sources: dict[str, Path], text: str, types: list[str], folder: Path) -> None:
    """Measure everything, and print the table."""
    original = folder / "original.gguf"
    quantize_all(sources, {original: Wanted.of("F32")}, name="model", progress=Silent())
    start = len(text) // 4
    matrix = calibrate(original, text[:start], dataset="text", progress=Silent())
    wanted = dict(files(types, matrix))
    paths = {name: folder / f"{number}.gguf" for number, name in enumerate(wanted)}
    outs = {paths[name]: file for name, file in wanted.items()}
    quantize_all(sources, outs, name="model", progress=Silent())
    found = measure_quality(
        paths, Baseline(original, "F32"), text[start:], folder=folder, what="text",
        progress=Silent(),
    )  # fmt: skip
    for name, quality in found:
        print(row(name, paths[name].stat().st_size, quality), flush=True)


def files(types: list[str], matrix: ImportanceMatrix) -> Iterator[tuple[str, Wanted]]:
    """Each type as it is, where it can be, and weighed by the matrix, where that is of use."""
    for name in types:
        kind = file_type(name)
        if not always_needs_matrix(kind, Overrides()):
            yield name, Wanted(kind)
        if kind.quantizes and not name.startswith(("Q8", "TQ")):
            yield f"{name}, matrix", Wanted(kind, matrix=matrix, matrix_name="text")


def row(name: str, size: int, quality: Quality) -> str:
    """One line of the table."""
    return (
        f"| {name} | {size / (1 << 20):.2f} | {quality.perplexity:.2f} "
        f"| {quality.increase:+.1%} ± {quality.increase_margin:.1%} "
        f"| {quality.divergence / NANONATS:.4f} ± {quality.divergence_margin:.4f} "
        f"| {quality.agreement / MILLIONTHS:.1%} |"
    )


if __name__ == "__main__":
    main()
