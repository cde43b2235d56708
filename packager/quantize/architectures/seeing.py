"""Models that see: only the part that reads and writes text becomes GGUF."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.config import ModelConfig

TEXT_PART = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(?:language_model\.model|model\.language_model)\.", "model."),
)
"""How to bring the names of the text part to those of a model for text alone."""

SEEING_PART = r"(?:model\.)?(?:vision_tower|multi_modal_projector)\."
"""What is left out."""


def text_only(config: ModelConfig) -> Iterable[str]:
    """A note where there is such a part."""
    if config.fields.has("vision_config"):
        yield "the part of the model that sees is left out; the GGUF file is for text"
