"""That nothing is fetched where a model runs which no engine here can run to find out.

GGUF models are run at the build, and watched (:mod:`packager.runtime.egress`). For the formats
that transformers and vLLM open, what their files refer to must be among them: a loader looks for
the rest on the hub, where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from packager.errors import NetworkUseError
from packager.format.foreign_json import parse_json
from packager.format.safetensors_header import MAX_INDEX_SIZE, check_index, parse_index
from packager.quantize.source import read_header
from packager.runtime.content import MAX_DOCUMENT_SIZE
from packager.store.atomic import read_capped

_INDEX_SUFFIX = ".safetensors.index.json"
_TOKENIZER_CONFIG, _MODULES = "tokenizer_config.json", "modules.json"
_VOCABULARY = re.compile(r"tokenizer\.json|vocab\..+|.+\.(model|spm|tiktoken)\Z")
_WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")  # read bytes
# Whose value is the name of a repository that a loader opens beside the model's own.
_ELSEWHERE = frozenset((
    "base_model_name_or_path", "pretrained_model_name_or_path", "tokenizer_name_or_path",
))  # fmt: skip
_HINT = "take a revision of the model that has all it needs, or leave the variant out"


def check_closure(variant: str, files: Mapping[str, Path]) -> None:
    """Refuse ``files`` of a source, carried as ``variant``, that refer to what is not among them.

    Raises ``NetworkUseError`` with the name of what would be fetched, ``UnsafeContentError`` or
    ``IntegrityError`` for an index of shards that does not fit them.
    """
    for path in sorted(files):
        name = PurePosixPath(path).name
        if path.endswith(_INDEX_SUFFIX):
            _check_shards(path, files)
        elif name in (_TOKENIZER_CONFIG, _MODULES) or name.endswith("config.json"):
            _check_document(variant, path, files)


def _check_shards(path: str, files: Mapping[str, Path]) -> None:
    index = parse_index(read_capped(files[path].resolve(), MAX_INDEX_SIZE), what=path)
    places = {name: str(PurePosixPath(path).parent / name) for name in index.shards}
    headers = {
        name: read_header(files[place], place) for name, place in places.items() if place in files
    }
    check_index(index, headers, what=path)


def _check_document(variant: str, path: str, files: Mapping[str, Path]) -> None:
    document = parse_json(read_capped(files[path].resolve(), MAX_DOCUMENT_SIZE), what=path)
    for key, wanted in _remote(document):
        raise _refuse(variant, f"{path}: {key} names {wanted[:200]!a}, which does not travel")
    beside = {PurePosixPath(file).name for file in files if _folder(file) == _folder(path)}
    if PurePosixPath(path).name == _TOKENIZER_CONFIG and isinstance(document, dict):
        _check_tokenizer(variant, path, document, beside)
    if PurePosixPath(path).name == _MODULES and isinstance(document, list):
        _check_modules(variant, path, document)


def _remote(document: object) -> Iterator[tuple[str, str]]:
    """Each key, at any depth, by which a loader opens another repository, with its name."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
            if value.get("use_pretrained_backbone") is True:
                yield "use_pretrained_backbone", str(value.get("backbone"))
            for key in sorted(_ELSEWHERE & value.keys()):
                if isinstance(value[key], str) and value[key]:
                    yield key, value[key]


def _check_tokenizer(
    variant: str, path: str, document: Mapping[str, object], beside: set[str]
) -> None:
    needs_none = document.get("tokenizer_class") in _WITHOUT_VOCABULARY
    if not (needs_none or any(map(_VOCABULARY.match, beside))):
        raise _refuse(variant, f"{path}: there is no vocabulary beside it, as tokenizer.json")
    for key in ("tokenizer_file", "vocab_file", "merges_file"):
        value = document.get(key)
        if isinstance(value, str) and PurePosixPath(value).name not in beside:
            raise _refuse(variant, f"{path}: {key} names {value[:200]!a}, which is not beside it")


def _check_modules(variant: str, path: str, modules: list[object]) -> None:
    """Of Sentence Transformers: any other module is code of the repository."""
    for module in modules:
        kind = str(module.get("type")) if isinstance(module, dict) else ""
        if not kind.startswith("sentence_transformers."):
            raise _refuse(variant, f"{path}: the module {kind[:200]!a} is none of its library's")


def _folder(path: str) -> PurePosixPath:
    return PurePosixPath(path).parent


def _refuse(variant: str, fact: str) -> NetworkUseError:
    return NetworkUseError(f"{variant}: {fact}", hint=_HINT)
