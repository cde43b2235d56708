"""Make tests/references/compressed-tensors.npz: what the library of that name makes of some rows.

    pip install torch compressed-tensors
    python scripts/make_compressed_expectations.py tests/references/compressed-tensors.npz

Not run by CI: what it wrote is committed, and is a contract. For each type of floats there are
rows as bytes, (rows, bytes), and for each scheme what ``calculate_qparams`` and ``quantize`` make
of them as scales and numbers, both as bytes, row by row.
"""

from __future__ import annotations

import sys
from pathlib import Path

import compressed_tensors
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
SCHEMES = ("FP8_DYNAMIC", "W8A8", "W8A16", "W4A16")
COLUMNS = 256


def rows(kind: torch.dtype) -> torch.Tensor:
    """Rows of all that may come, and of what had better not, finite, of ``kind``."""
    random = torch.Generator().manual_seed(20263)
    plain = torch.randn(8, COLUMNS, generator=random) * 0.02
    heavy = torch.randn(4, COLUMNS, generator=random) ** 7
    tiny = torch.randn(4, COLUMNS, generator=random) * torch.tensor(
        [[1e-3], [1e-5], [1e-7], [1e-30]]
    )
    ties = torch.randint(-15, 16, (4, COLUMNS), generator=random) / 2
    ties[:, ::128] = 7.5
    bits = torch.randint(-(2**31), 2**31, (8, COLUMNS), generator=random, dtype=torch.int64)
    anything = bits.to(torch.int32).view(torch.float32)
    zeros = torch.zeros(2, COLUMNS)
    zeros[1] = -0.0
    zeros[1, 3] = -1e-6
    made = torch.cat([plain, heavy, tiny, ties, anything, zeros]).to(kind)
    return torch.where(torch.isfinite(made), made, torch.zeros_like(made)).contiguous()


def expected(weights: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers and the scales, as the library stores them."""
    arguments = preset_name_to_scheme(name, ["Linear"]).weights
    group = arguments.group_size or COLUMNS
    groups = weights.unflatten(-1, (COLUMNS // group, group))
    scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    kind = torch.int8 if arguments.type == "int" else torch.float8_e4m3fn
    numbers = quantize(weights.float(), scales.float(), None, arguments, dtype=kind)
    return (pack_to_int32(numbers, arguments.num_bits) if arguments.group_size else numbers), scales


def as_bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).reshape(len(tensor), -1).numpy()


def main() -> None:
    arrays = {}
    for dtype, kind in TYPES.items():
        weights = rows(kind)
        arrays[dtype] = as_bytes(weights)
        for name in SCHEMES:
            numbers, scales = expected(weights, name)
            arrays[f"{dtype}.{name}.numbers"] = as_bytes(numbers)
            arrays[f"{dtype}.{name}.scales"] = as_bytes(scales)
    np.savez_compressed(Path(sys.argv[1]), **arrays)
    print(f"compressed-tensors {compressed_tensors.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
