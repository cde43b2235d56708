"""The schemes of compressed-tensors that are made here, and what ``config.json`` says of each.

Names and contents are those of the presets in ``compressed_tensors/quantization/quant_scheme.py``,
and validate with its versions 0.17 to 0.20. All are symmetric and need no forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packager.errors import UsageError
from packager.format.canonical import Json

FLOAT = "float"
INT = "int"


@dataclass(frozen=True)
class Scheme:
    """How the matrices of linear layers are stored.

    ``storage`` is compressed-tensors' name of the layout, ``kind`` that of the numbers, of
    ``bits`` bits. A scale covers ``group`` neighbouring columns of a row, or all of them where
    that is 0. ``activations``: whoever runs it quantizes the inputs of each token likewise.
    """

    name: str
    storage: str
    kind: str
    bits: int
    group: int
    activations: bool

    @property
    def is_packed(self) -> bool:
        """Whether the numbers are packed into 32-bit words."""
        return self.group > 0

    def groups(self, columns: int) -> int:
        """How many scales a row of ``columns`` has; 0 where the groups do not divide it."""
        if not self.group:
            return 1
        return 0 if columns % self.group else columns // self.group


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("FP8_DYNAMIC", "float-quantized", FLOAT, 8, 0, activations=True),
        Scheme("W8A8", "int-quantized", INT, 8, 0, activations=True),
        Scheme("W8A16", "pack-quantized", INT, 8, 128, activations=False),
        Scheme("W4A16", "pack-quantized", INT, 4, 128, activations=False),
    )
}


def find_scheme(name: str) -> Scheme:
    """The scheme called ``name``; raises ``UsageError`` for no such."""
    if name not in SCHEMES:
        raise UsageError(
            f"{name!a} is not a scheme of compressed-tensors known here",
            hint=f"choose of {', '.join(SCHEMES)}",
        )
    return SCHEMES[name]


def quantization_config(scheme: Scheme, ignore: Sequence[str]) -> Json:
    """The ``quantization_config`` of a model whose linear layers, but for ``ignore``, have it.

    ``ignore`` are names of modules, or regular expressions for them that begin with ``re:``.
    """
    activations: Json = None
    if scheme.activations:
        activations = _arguments(scheme, "token", group=None, dynamic=True)
    weights = _arguments(
        scheme,
        "group" if scheme.group else "channel",
        group=scheme.group or None,
        dynamic=False,
    )
    return {
        "quant_method": "compressed-tensors",
        "format": scheme.storage,
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": activations,
                "output_activations": None,
            }
        },
        "ignore": list(ignore),
        "kv_cache_scheme": None,
    }


def _arguments(scheme: Scheme, strategy: str, *, group: int | None, dynamic: bool) -> Json:
    return {
        "num_bits": scheme.bits,
        "type": scheme.kind,
        "symmetric": True,
        "strategy": strategy,
        "group_size": group,
        "dynamic": dynamic,
    }
