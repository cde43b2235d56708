"""Layers that attend to a sliding window, and layers that attend to everything."""

from __future__ import annotations

from collections.abc import Iterable

from packager.errors import UsageError
from packager.quantize.config import ModelConfig
from packager.quantize.gguf_writer import Entry, flags, uint32

_SLIDING = "sliding_attention"


def sliding_layers(config: ModelConfig, *, full_every: int) -> tuple[bool, ...]:
    """Whether each layer slides: as ``layer_types`` says, else all but every ``full_every``-th.

    Raises ``MalformedError`` where ``layer_types`` is not one word for each layer.
    """
    if not config.fields.has("layer_types"):
        return tuple((number + 1) % full_every != 0 for number in range(config.layers))
    types = config.fields.texts("layer_types")
    if len(types) != config.layers:
        raise config.fields.refuse("layer_types", f"{len(types)} for {config.layers} layers")
    return tuple(kind == _SLIDING for kind in types)


def check_sliding_rope(config: ModelConfig, *, base: float | None = None) -> None:
    """Refuse rotary positions of sliding layers that are scaled, or of another base than ``base``.

    Raises ``UsageError``; llama.cpp scales those of the other layers alone.
    """
    rope = config.sliding_rope
    if rope is None:
        return
    if rope.scaling is not None or base not in (None, rope.base):
        raise UsageError(
            "config.json: rope_parameters: those of the layers with sliding attention are not "
            f"what llama.cpp computes for {config.architecture}",
            hint="use `format: safetensors`",
        )


def sliding_entries(config: ModelConfig, *, full_every: int) -> Iterable[Entry]:
    """The window in tokens, and which layers keep to it; nothing where none does.

    ``full_every`` is transformers' and llama.cpp's own rhythm, which need not be written.
    """
    layers = sliding_layers(config, full_every=full_every)
    if config.sliding_window is None or not any(layers):
        return
    yield uint32("attention.sliding_window", config.sliding_window)
    if layers != tuple((number + 1) % full_every != 0 for number in range(config.layers)):
        yield flags("attention.sliding_window_pattern", layers)
