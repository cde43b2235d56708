"""What an architecture states of itself: its tensors, where they come from, and its metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from packager.quantize.architectures.blocks import ends
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def no_entries(_config: ModelConfig) -> Iterable[Entry]:
    """Nothing beyond the metadata that all architectures have."""
    return ()


def no_notes(_config: ModelConfig) -> Iterable[str]:
    """Nothing that llama.cpp computes otherwise."""
    return ()


# Decoders saved without the layer that makes logits, as models for search are.
WITHOUT_HEAD = ((r"^(?=(?:embed_tokens|layers|norm)\.)", "model."),)


@dataclass(frozen=True)
class Architecture:
    """One architecture as transformers and as llama.cpp know it.

    ``names`` are those that ``config.json`` may give it; ``gguf_name`` is llama.cpp's.
    ``layer`` gives the tensors of one layer, with names relative to it; ``outside`` those
    beside the layers; ``entries`` the metadata that it alone has, with keys that lack
    ``gguf_name`` before them. Both read ``config.json`` through ``ModelConfig.fields`` and raise
    ``UsageError`` for what llama.cpp would compute otherwise. ``notes`` tell what it computes
    a little otherwise.

    ``is_encoder``: it makes one vector of a text, and attends to what comes as to what came.
    ``quantized_sources`` are the methods of quantization that ``layer`` can start from; without
    any, FP8 is widened before it comes to that.
    ``keeps_window``: llama.cpp attends to a sliding window where the model does.
    ``layers_of_70b`` marks what llama.cpp takes for a "70B", which changes a mixture.

    ``norm_epsilon`` is GGUF's key, after ``attention.``, for the smallest number of a norm.
    ``layer_prefix`` stands before transformers' names within a layer, with {} for its number.
    ``renamed`` are pairs of a pattern and its replacement that bring other spellings of the
    source's tensor names to the one used in ``layer``. Tensors whose (renamed) names match
    ``left_out`` play no part in what llama.cpp computes.
    """

    names: tuple[str, ...]
    gguf_name: str
    layer: Callable[[ModelConfig], Iterable[Weight]]
    outside: Callable[[ModelConfig], Iterable[Weight]] = ends
    entries: Callable[[ModelConfig], Iterable[Entry]] = no_entries
    notes: Callable[[ModelConfig], Iterable[str]] = no_notes
    dialect: Dialect = field(default_factory=Dialect)
    keeps_window: bool = False
    is_encoder: bool = False
    quantized_sources: tuple[str, ...] = ()
    layers_of_70b: int | None = None
    norm_epsilon: str = "layer_norm_rms_epsilon"
    layer_prefix: str = "model.layers.{}."
    renamed: tuple[tuple[str, str], ...] = WITHOUT_HEAD
    left_out: str | None = None

    def weights(self, config: ModelConfig) -> Iterable[Weight]:
        """Every tensor of the output, in no particular order."""
        yield from self.outside(config)
        layer = tuple(self.layer(config))
        for number in range(config.layers):
            for weight in layer:
                yield weight.within(f"blk.{number}.", self.layer_prefix.format(number))

    def is_70b(self, config: ModelConfig) -> bool:
        """Whether llama.cpp takes the model for a "70B"."""
        if config.layers != self.layers_of_70b:
            return False
        return self.gguf_name != "llama" or config.heads != config.key_value_heads

    def usual_name(self, name: str) -> str:
        """The spelling used here of ``name``, a tensor of the source."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def leaves_out(self, name: str) -> bool:
        """Whether llama.cpp has no use for the tensor ``name`` (in the spelling used here)."""
        return self.left_out is not None and re.match(self.left_out, name) is not None
