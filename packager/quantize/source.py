"""The files of a model as its repository names them, and the tensors in its shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.errors import IntegrityError, MalformedError, UsageError
from packager.format import safetensors_header as safetensors
from packager.format.fields import Fields
from packager.format.foreign_json import parse_json, parse_json_object
from packager.format.safetensors_header import SafetensorsHeader, TensorEntry
from packager.store.atomic import naming_refusals, open_regular, read_capped

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MODULES_NAME = "modules.json"

MAX_CONFIG_SIZE = 1 << 20
MAX_TEMPLATE_SIZE = 1 << 20
MAX_TOKENIZER_SIZE = 128 << 20


@dataclass(frozen=True)
class Module:
    """One entry of sentence-transformers' ``modules.json``: ``kind`` is the class of ``type``.

    ``config`` is the ``config.json`` in its folder ``path``.
    """

    kind: str
    path: str
    config: Mapping[str, object] | None


@dataclass(frozen=True)
class Documents:
    """The small files of a model, parsed; absent ones are empty or ``None``."""

    config: Mapping[str, object]
    tokenizer: Mapping[str, object] | None
    tokenizer_config: Mapping[str, object]
    added_tokens: Mapping[str, object]
    sentencepiece: bytes | None
    chat_template: str | None
    modules: tuple[Module, ...] = ()


@dataclass(frozen=True)
class SourceTensor:
    """One tensor, and the shard on this disk that holds it."""

    entry: TensorEntry
    shard: str
    path: Path


def read_documents(files: Mapping[str, Path]) -> Documents:
    """Read and parse the small files among ``files``.

    Raises ``MalformedError`` for a broken document, ``UsageError`` without ``config.json``.
    """
    config = _read_json(files, "config.json", MAX_CONFIG_SIZE)
    if config is None:
        raise UsageError("config.json: the source has none, so its architecture is unknown")
    sentencepiece = _read(files, "tokenizer.model", MAX_TOKENIZER_SIZE)
    template = _read(files, "chat_template.jinja", MAX_TEMPLATE_SIZE)
    return Documents(
        config=config,
        tokenizer=_read_json(files, "tokenizer.json", MAX_TOKENIZER_SIZE),
        tokenizer_config=_read_json(files, "tokenizer_config.json", MAX_TOKENIZER_SIZE) or {},
        added_tokens=_read_json(files, "added_tokens.json", MAX_TOKENIZER_SIZE) or {},
        sentencepiece=sentencepiece,
        chat_template=None if template is None else _decode(template, "chat_template.jinja"),
        modules=_read_modules(files),
    )


def read_tensors(files: Mapping[str, Path]) -> dict[str, SourceTensor]:
    """Every tensor of the model, by transformers' name, from one shard or from many.

    Raises ``MalformedError`` or ``UnsafeContentError`` for shards or an index that are broken,
    ``UsageError`` where there are no safetensors at all.
    """
    index_data = _read(files, INDEX_NAME, safetensors.MAX_INDEX_SIZE)
    if index_data is not None:
        index = safetensors.parse_index(index_data, what=INDEX_NAME)
        headers = {name: read_header(files[name], name) for name in index.shards if name in files}
        safetensors.check_index(index, headers, what=INDEX_NAME)
    elif SINGLE_NAME in files:
        headers = {SINGLE_NAME: read_header(files[SINGLE_NAME], SINGLE_NAME)}
    else:
        raise UsageError(f"the source has neither {SINGLE_NAME} nor {INDEX_NAME}")
    return {
        entry.name: SourceTensor(entry, shard, files[shard])
        for shard, header in headers.items()
        for entry in header.tensors
    }


Stamp = tuple[int, ...]
"""What any change of a file's bytes, or of which file this is, changes."""


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """The files at ``paths`` as they are now; raises ``HostError`` for one that is not there."""
    return {path: _stamp(path) for path in paths}


def check_unchanged(stamps: Mapping[Path, Stamp]) -> None:
    """Refuse what was made of files that are not as :func:`stamps_of` saw them.

    Raises ``IntegrityError``, or ``HostError`` for one that is gone.
    """
    for path, stamp in stamps.items():
        if _stamp(path) != stamp:
            raise IntegrityError(
                f"{path}: was changed while it was read",
                hint="run the same command again, once nothing writes there",
            )


def _stamp(path: Path) -> Stamp:
    with naming_refusals(path):
        status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_header(path: Path, what: str) -> SafetensorsHeader:
    """The header of the safetensors file at ``path``, called ``what`` in errors."""
    with open_regular(path.resolve()) as descriptor:
        file_size = os.fstat(descriptor).st_size
        prefix = os.pread(descriptor, 16, 0)
        end = safetensors.header_end(prefix, file_size=file_size, what=what)
        header = os.pread(descriptor, end, 0)
    return safetensors.parse_header(header, file_size=file_size, what=what)


def _read_modules(files: Mapping[str, Path]) -> tuple[Module, ...]:
    data = _read(files, MODULES_NAME, MAX_CONFIG_SIZE)
    if data is None:
        return ()
    found = Fields.of({"modules": parse_json(data, what=MODULES_NAME)}, MODULES_NAME)
    return found.each("modules", lambda fields: _module(fields, files))


def _module(fields: Fields, files: Mapping[str, Path]) -> Module:
    path = str(fields.values.get("path", ""))
    return Module(
        kind=fields.text("type").rpartition(".")[2],
        path=path,
        config=_read_json(files, f"{path}/config.json", MAX_CONFIG_SIZE),
    )


def _read(files: Mapping[str, Path], name: str, max_size: int) -> bytes | None:
    return read_capped(files[name].resolve(), max_size) if name in files else None


def _read_json(files: Mapping[str, Path], name: str, max_size: int) -> dict[str, object] | None:
    data = _read(files, name, max_size)
    return None if data is None else parse_json_object(data, what=name)


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{what}: not UTF-8") from None
