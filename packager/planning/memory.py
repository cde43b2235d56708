"""How much memory llama.cpp takes for a model, computed from the header of its GGUF file.

The cache is exact: it is allocated whole when the model is opened. The buffers are an upper bound
of what ``ggml_backend_sched_reserve`` asks for with flash attention; tests hold both against what
the engine itself says for each family.
"""

from __future__ import annotations

from packager.errors import MalformedError
from packager.format.gguf_header import GgufArray, GgufHeader
from packager.format.memory import MemoryNeed

# llama.cpp's own: tokens read at once, the cells of a cache come in these multiples, f16 in it.
BATCH = 512
_CELLS = 256
_F16, _F32 = 2, 4
# The interpreter and the engine's code and tokenizer, measured: 40 to 90 MB.
_PROCESS = 96 << 20
# Every how many layers one attends to everything, where the header does not list them.
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "olmo2": 4}


def memory_need(header: GgufHeader, context: int, *, makes_vectors: bool) -> MemoryNeed:
    """What a model takes at ``context`` tokens; ``makes_vectors``: it reads a text at once.

    ``header`` must have been read with the items of :func:`arrays_of`. Raises ``MalformedError``
    where it lacks what a transformer states.
    """
    if any(key.startswith(f"{header.architecture}.ssm.") for key in header.metadata):
        raise MalformedError(f"{header.architecture}: its layers keep a state, not a cache")
    return MemoryNeed(
        context=context,
        cache=0 if makes_vectors else _cache(header, context),
        buffers=_PROCESS + _buffers(header, context, makes_vectors),
    )


def arrays_of(architecture: str) -> tuple[str, ...]:
    """The arrays of a header whose items :func:`memory_need` looks at."""
    return tuple(
        f"{architecture}.{key}"
        for key in (
            "attention.sliding_window_pattern",
            "attention.head_count",
            "attention.head_count_kv",
            "feed_forward_length",
        )
    )


def _cache(header: GgufHeader, context: int) -> int:
    """Keys and values of every layer, in f16; of a layer that slides, those of its window."""
    layers = _number(header, "block_count")
    heads = max(_numbers(header, "attention.head_count", layers))
    size = _number(header, "embedding_length") // max(heads, 1)
    keys, values = (_number(header, f"attention.{x}_length", size) for x in ("key", "value"))
    kv_heads = _numbers(header, "attention.head_count_kv", layers, heads)
    cells = _cells(context)
    window = _number(header, "attention.sliding_window", 0)
    slides = _sliding(header, layers) if window else (False,) * layers
    near = min(cells, _cells(window + BATCH))
    return sum(
        (near if slide else cells) * kv * (keys + values) * _F16
        for kv, slide in zip(kv_heads, slides, strict=True)
    )


def _buffers(header: GgufHeader, context: int, makes_vectors: bool) -> int:
    """One batch's activations and masks, and where text is generated, its logits."""
    batch = context if makes_vectors else BATCH
    width = _number(header, "embedding_length")
    layers = _number(header, "block_count")
    forward = max(_numbers(header, "feed_forward_length", layers, 4 * width))
    experts = _number(header, "expert_used_count", 0)
    if experts:
        forward = max(forward, experts * _number(header, "expert_feed_forward_length", forward))
    masks = 2 * _cells(context) * _F16
    logits = 0 if makes_vectors else _vocabulary(header) * _F32
    return batch * (logits + masks + (3 * forward + 8 * width) * _F32)


def _sliding(header: GgufHeader, layers: int) -> tuple[bool, ...]:
    pattern = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, GgufArray) and pattern.items and len(pattern.items) == layers:
        return tuple(bool(item) for item in pattern.items)
    every = _FULL_EVERY.get(header.architecture)
    if every is None:  # the window is stated, and the engine keeps the whole cache
        return (False,) * layers
    return tuple((number + 1) % every != 0 for number in range(layers))


def _vocabulary(header: GgufHeader) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    count = tokens.count if isinstance(tokens, GgufArray) else 0
    return _number(header, "vocab_size", count)


def _cells(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS


def _numbers(
    header: GgufHeader, key: str, layers: int, default: int | None = None
) -> tuple[int, ...]:
    """A number for each layer, where the header gives one for all, or a list of them."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(value, GgufArray) and value.items and len(value.items) == layers:
        return tuple(item for item in value.items if isinstance(item, int))
    return (_number(header, key, default),) * layers


def _number(header: GgufHeader, key: str, default: int | None = None) -> int:
    name = f"{header.architecture}.{key}"
    value = header.metadata.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise MalformedError(f"{name}: missing, or not a number that a model has")
    return value
