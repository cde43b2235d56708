"""What must be known of a GGUF file before an engine opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.errors import EngineError
from packager.format.gguf_header import GgufHeader, parse_header
from packager.store.atomic import naming_refusals

_TEMPLATE = "tokenizer.chat_template"
# ``enum llama_pooling_type`` in llama.cpp's ``include/llama.h``: how vectors of tokens become one.
_NO_POOLING, _RANKING = 0, 4


@dataclass(frozen=True)
class ModelFile:
    """A model on disk: ``size`` in bytes, ``context`` the tokens it was trained to attend to.

    ``makes_vectors``: it turns a text into a vector, and does not continue it.
    """

    path: Path
    size: int
    context: int
    has_chat_template: bool
    makes_vectors: bool


def read_model_file(path: Path) -> ModelFile:
    """Read the header of the GGUF file at ``path``.

    Raises ``HostError`` where it cannot be read, ``MalformedError`` or ``TruncatedError`` where
    it is not what it should be, ``EngineError`` where it does not state its context, or is of a
    kind that is not run here.
    """
    with naming_refusals(path), path.open("rb") as stream:
        size = path.stat().st_size
        header = parse_header(stream, file_size=size, what=str(path))
    context = header.metadata.get(f"{header.architecture}.context_length")
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise EngineError(f"{path}: does not state its context_length")
    template = header.metadata.get(_TEMPLATE)
    return ModelFile(
        path=path.absolute(),
        size=size,
        context=context,
        has_chat_template=isinstance(template, str) and bool(template),
        makes_vectors=_makes_vectors(header, path),
    )


def _makes_vectors(header: GgufHeader, path: Path) -> bool:
    pooling = header.metadata.get(f"{header.architecture}.pooling_type", _NO_POOLING)
    if pooling == _RANKING:
        raise EngineError(f"{path}: a model that ranks texts, which airpack does not run")
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal", True)
    return pooling != _NO_POOLING or is_causal is False
