"""What the supported decoders have in common, and what an architecture states of itself.

All are pre-norm transformers with rotary positions, grouped-query attention and a gated
feed-forward network; they differ in biases, norms of queries and keys, and the order in which
llama.cpp wants the rows of queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from packager.quantize.config import Defaults, ModelConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """One architecture of transformers, and how llama.cpp calls it.

    ``interleaves_rotary_pairs``: llama.cpp rotates neighbouring rows of q and k, transformers
    rows half a head apart, so the rows of each head are reordered. ``normalizes_qk``: a norm on
    each head's queries and keys. ``biases_qkv``: biases on q, k and v whatever the configuration
    says.
    """

    name: str
    gguf_name: str
    interleaves_rotary_pairs: bool = False
    normalizes_qk: bool = False
    biases_qkv: bool = False
    layers_of_70b: int | None = None
    defaults: Defaults = field(default_factory=Defaults)

    def is_70b(self, config: ModelConfig) -> bool:
        """Whether llama.cpp takes the model for a "70B", which changes a mixture."""
        if config.layers != self.layers_of_70b:
            return False
        return self.gguf_name != "llama" or config.heads != config.key_value_heads

    def tensors(self, config: ModelConfig) -> dict[str, Shape]:
        """Every tensor the model must have: transformers' name -> shape (rows, columns) or (n,)."""
        tensors: dict[str, Shape] = {
            "model.embed_tokens.weight": (config.vocabulary, config.width),
            "model.norm.weight": (config.width,),
        }
        if not config.tied_embeddings:
            tensors["lm_head.weight"] = (config.vocabulary, config.width)
        for layer in range(config.layers):
            for name, shape in self._layer(config).items():
                tensors[f"model.layers.{layer}.{name}"] = shape
        return tensors

    def is_rotary(self, name: str) -> bool:
        """Whether the rows of the tensor ``name`` (transformers' name) have to be reordered."""
        return self.interleaves_rotary_pairs and name.split(".")[-2] in ("q_proj", "k_proj")

    def _layer(self, config: ModelConfig) -> dict[str, Shape]:
        queries = config.heads * config.head_size
        keys = config.key_value_heads * config.head_size
        projections = {
            "self_attn.q_proj": (queries, config.width),
            "self_attn.k_proj": (keys, config.width),
            "self_attn.v_proj": (keys, config.width),
            "self_attn.o_proj": (config.width, queries),
            "mlp.gate_proj": (config.feed_forward, config.width),
            "mlp.up_proj": (config.feed_forward, config.width),
            "mlp.down_proj": (config.width, config.feed_forward),
        }
        tensors: dict[str, Shape] = {
            "input_layernorm.weight": (config.width,),
            "post_attention_layernorm.weight": (config.width,),
        }
        if self.normalizes_qk:
            tensors["self_attn.q_norm.weight"] = (config.head_size,)
            tensors["self_attn.k_norm.weight"] = (config.head_size,)
        for name, shape in projections.items():
            tensors[f"{name}.weight"] = shape
            if self._is_biased(name, config):
                tensors[f"{name}.bias"] = shape[:1]
        return tensors

    def _is_biased(self, projection: str, config: ModelConfig) -> bool:
        part, name = projection.split(".")
        if part == "mlp":
            return config.feed_forward_bias
        if self.biases_qkv:
            return name != "o_proj"
        return config.attention_bias
