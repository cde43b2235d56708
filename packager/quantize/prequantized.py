"""Sources whose weights are quantized already: which of them can be widened again, and how.

FP8 is floats with a scale: their product is what they stand for. Two ways of writing it are known,
``quant_method: fp8`` (DeepSeek, Qwen, Mistral: ``X.weight_scale_inv``, which is a factor whatever
its name says) and compressed-tensors' ``float-quantized`` (``X.weight_scale``). A scale covers the
whole tensor, a row, or a block. GPTQ and AWQ have few bits, chosen for the errors that their own
scales make: quantized a second time they would only be worse.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from packager.errors import MalformedError, UsageError
from packager.format.fields import Fields
from packager.format.safetensors_header import TensorEntry

WHAT = "config.json: quantization_config"
FP8 = "F8_E4M3"
E8M0 = "F8_E8M0"

# Factors for the inputs of layers, and for the memory of attention: neither is in a GGUF file.
_OF_ACTIVATIONS = (".input_scale", ".activation_scale", ".k_scale", ".v_scale", ".q_scale")
_FLOAT_FORMATS = ("float-quantized", "naive-quantized")
_STRATEGIES = ("tensor", "channel", "block")


@dataclass(frozen=True)
class Fp8Source:
    """A model in FP8: the scales of the tensor NAME are NAME and one of ``suffixes``.

    ``block``: the rows and columns that a scale covers, where there is one for each block.
    """

    suffixes: tuple[str, ...]
    block: tuple[int, int] | None

    def scales_of(self, name: str, found: Container[str]) -> str:
        """The name of the scales of ``name``, a tensor in FP8, among those ``found``."""
        names = [name + suffix for suffix in self.suffixes]
        return next((scales for scales in names if scales in found), names[0])

    def is_factor(self, name: str, fp8: Container[str]) -> bool:
        """Whether the tensor ``name`` is but a factor for others; ``fp8`` are those in FP8."""
        is_scale = any(
            name.endswith(suffix) and name.removesuffix(suffix) in fp8 for suffix in self.suffixes
        )
        return is_scale or name.endswith(_OF_ACTIVATIONS)

    def covered(self, tensor: TensorEntry, scales: TensorEntry) -> tuple[int, int]:
        """The rows and columns of ``tensor``, a matrix, that each of ``scales`` covers.

        Raises ``MalformedError`` for scales of another shape than there can be.
        """
        if len(tensor.shape) != 2:
            raise MalformedError(f"{tensor.name} is in FP8, but no matrix")
        rows, columns = tensor.shape
        if self.block is not None:
            height, width = self.block
            if scales.shape == (-(-rows // height), -(-columns // width)):
                return self.block
        elif scales.shape in ((), (1,), (1, 1)):
            return rows, columns
        elif scales.shape in ((rows,), (rows, 1)):
            return 1, columns
        raise MalformedError(
            f"{scales.name} has the shape {list(scales.shape)}, which does not fit "
            f"{tensor.name} of {list(tensor.shape)}"
        )


def method_of(config: Mapping[str, object]) -> str | None:
    """The method by which the weights of a parsed ``config.json`` are quantized, if they are."""
    quantization = config.get("quantization_config")
    if quantization is None:
        return None
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return str(method)[:40]


def fp8_source(config: Mapping[str, object]) -> Fp8Source | None:
    """How the FP8 weights of a parsed ``config.json`` are written; ``None`` for plain floats.

    Raises ``UsageError`` for weights quantized in a way that is not undone here.
    """
    method = method_of(config)
    if method is None:
        return None
    fields = Fields.of(config["quantization_config"], WHAT)
    if method == "fp8":
        return Fp8Source(("_scale_inv", "_scale"), _block(fields, "weight_block_size"))
    if method == "compressed-tensors" and fields.values.get("format") in _FLOAT_FORMATS:
        return Fp8Source(("_scale",), _block_of_groups(fields))
    raise quantized_already(method)


def quantized_already(method: str) -> UsageError:
    """The refusal of weights that ``method`` has quantized."""
    return UsageError(
        f"config.json: the weights are quantized already (quantization_config: {method!a})",
        hint="start from the model's 16-bit weights, or carry these as they are with "
        "`format: safetensors`",
    )


def _block_of_groups(fields: Fields) -> tuple[int, int] | None:
    """The block of compressed-tensors' groups of layers, which must all be symmetric FP8."""
    groups = fields.mapping("config_groups")
    blocks = {_block_of_group(groups.mapping(name).mapping("weights")) for name in groups.values}
    if len(blocks) != 1:
        raise quantized_already(f"compressed-tensors, {len(blocks)} strategies")
    return blocks.pop()


def _block_of_group(weights: Fields) -> tuple[int, int] | None:
    strategy = weights.text("strategy")
    is_fp8 = weights.text("type") == "float" and weights.integer("num_bits") == 8
    if not is_fp8 or not weights.flag("symmetric", True) or strategy not in _STRATEGIES:
        raise quantized_already("compressed-tensors")
    if strategy == "block" and not weights.has("block_structure"):
        raise weights.refuse("block_structure", "missing")
    return _block(weights, "block_structure")


def _block(fields: Fields, key: str) -> tuple[int, int] | None:
    if not fields.has(key):
        return None
    sizes = fields.items(key)
    if len(sizes) != 2 or not all(type(size) is int and 1 <= size <= 1 << 20 for size in sizes):
        raise fields.refuse(key, "expected two numbers of rows and columns")
    return int(str(sizes[0])), int(str(sizes[1]))
