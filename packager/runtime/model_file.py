"""What must be known of a GGUF file before an engine opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packager.errors import EngineError, MalformedError
from packager.format.gguf_header import GgufHeader, parse_header
from packager.format.gguf_split import ShardName, check_parts
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
    architecture: str
    context: int
    has_chat_template: bool
    makes_vectors: bool


def read_model_file(path: Path) -> ModelFile:
    """Read the header of the GGUF file at ``path``, and those of its parts where it is split.

    Raises ``HostError`` where one cannot be read, ``IntegrityError`` (``MalformedError`` and
    ``TruncatedError`` among them) where it is not what it should be or a part is of another
    model, ``EngineError`` where it does not state its context, or is of a kind that is not run
    here.
    """
    header, size = _read_header(path)
    _check_architecture(path, header)
    context = header.metadata.get(f"{header.architecture}.context_length")
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise EngineError(f"{path}: does not state its context_length")
    template = header.metadata.get(_TEMPLATE)
    return ModelFile(
        path=path.absolute(),
        size=size + _size_of_other_parts(path, header),
        architecture=header.architecture,
        context=context,
        has_chat_template=isinstance(template, str) and bool(template),
        makes_vectors=_makes_vectors(header, path),
    )


def _size_of_other_parts(path: Path, first: GgufHeader) -> int:
    """The bytes of the parts beside the ``first``, at ``path``, which the engine opens by name."""
    if "split.count" not in first.metadata:
        return 0
    shard = ShardName.parse(path.name)
    names = shard.shards()[1:] if shard else ()
    others = [(name, *_read_header(path.with_name(name))) for name in names]
    check_parts([(path.name, first), *((name, header) for name, header, _ in others)])
    return sum(size for _, _, size in others)


def check_adapter_file(path: Path, model: ModelFile) -> None:
    """Refuse a file at ``path`` that is no LoRA adapter for the architecture of ``model``.

    Raises ``EngineError``, and what :func:`read_model_file` does for a broken file. Whether the
    shapes fit, the engine finds out.
    """
    header, _ = _read_header(path)
    _check_architecture(path, header)
    kinds = [header.metadata.get(key) for key in ("general.type", "adapter.type")]
    if kinds != ["adapter", "lora"]:
        raise EngineError(f"{path}: not a LoRA adapter")
    if header.architecture != model.architecture:
        raise EngineError(
            f"{path}: an adapter for {header.architecture[:40]!a}, and {model.path.name} is "
            f"{model.architecture[:40]!a}"
        )


def _check_architecture(path: Path, header: GgufHeader) -> None:
    """Refuse a header without an architecture, by the name of its file."""
    try:
        _ = header.architecture
    except MalformedError as error:
        raise MalformedError(f"{path}: {error.message}") from None


def _read_header(path: Path) -> tuple[GgufHeader, int]:
    """The header of the file at ``path``, and how many bytes the file has."""
    with naming_refusals(path), path.open("rb") as stream:
        size = path.stat().st_size
        return parse_header(stream, file_size=size, what=str(path)), size


def _makes_vectors(header: GgufHeader, path: Path) -> bool:
    pooling = header.metadata.get(f"{header.architecture}.pooling_type", _NO_POOLING)
    if pooling == _RANKING:
        raise EngineError(f"{path}: a model that ranks texts, which airpack does not run")
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal", True)
    return pooling != _NO_POOLING or is_causal is False
