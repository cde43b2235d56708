"""What must be known of a GGUF file before an engine opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.errors import EngineError
from packager.format.gguf_header import parse_header
from packager.store.atomic import naming_refusals

_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class ModelFile:
    """A model on disk: ``size`` in bytes, ``context`` the tokens it was trained to attend to."""

    path: Path
    size: int
    context: int
    has_chat_template: bool


def read_model_file(path: Path) -> ModelFile:
    """Read the header of the GGUF file at ``path``.

    Raises ``HostError`` where it cannot be read, ``MalformedError`` or ``TruncatedError`` where
    it is not what it should be, ``EngineError`` where it does not state its context.
    """
    with naming_refusals(path), path.open("rb") as stream:
        size = path.stat().st_size
        header = parse_header(stream, file_size=size, what=str(path))
    context = header.metadata.get(f"{header.architecture}.context_length")
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise EngineError(f"{path}: does not state its context_length")
    template = header.metadata.get(_TEMPLATE)
    return ModelFile(path.absolute(), size, context, isinstance(template, str) and bool(template))
