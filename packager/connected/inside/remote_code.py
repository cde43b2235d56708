"""``--strip-remote-code``: a source without the keys that make loaders run code of its own.

The code itself never travels. A model that airpack knows the architecture of needs none: the
keys are then left over from before transformers knew it too, and go, which the index says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.source.fetch import fetch
from packager.connected.workshop import key_of
from packager.errors import UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.foreign_json import parse_json, parse_json_object
from packager.format.lock import SHA256, ContentId, Lock
from packager.progress import Progress
from packager.quantize.architectures import find_architecture
from packager.runtime.content import MAX_DOCUMENT_SIZE, check_content, check_names, runs_code
from packager.store.atomic import make_directory, read_capped, write_file
from packager.store.digests import file_digest

_CONFIG = "config.json"
_SUFFIX = ".stripped.json"


@dataclass(frozen=True)
class Source:
    """A source as it travels: ``lock`` has the content ids of the files as they are now.

    ``removed`` says what is no longer there, as ``config.json: auto_map``.
    """

    files: Mapping[str, Path]
    lock: Lock
    removed: tuple[str, ...]


def fetch_as_it_is(lock: Lock, cache: Cache, progress: Progress, *, recipe_folder: Path) -> Source:
    """The files that ``lock`` names; raises what :func:`.fetch.fetch` does."""
    return Source(fetch(lock, cache, progress, recipe_folder=recipe_folder), lock, ())


def fetch_stripped(lock: Lock, cache: Cache, progress: Progress, *, recipe_folder: Path) -> Source:
    """The same, less the keys that name code. Raises what :func:`strip_remote_code` does, too."""
    files = fetch(lock, cache, progress, recipe_folder=recipe_folder, check=check_names)
    source = strip_remote_code(files, lock, cache)
    check_content(source.files)
    for line in source.removed:
        progress.note(f"{line}: left out; the index says so")
    return source


def strip_remote_code(files: Mapping[str, Path], lock: Lock, cache: Cache) -> Source:
    """Leave the keys out of the JSON files among ``files``; the changed ones are in ``cache``.

    Raises ``UnsafeContentError`` where the model would not run without the code that they name.
    """
    kept, removed = dict(files), list[str]()
    for path in sorted(files):
        if not path.lower().endswith(".json"):
            continue
        data = read_capped(files[path].resolve(), MAX_DOCUMENT_SIZE)
        document = parse_json(data, what=path)
        keys = dict.fromkeys(_remove(document))
        if keys:
            kept[path] = _write(path, document, data, cache)
            removed += [f"{path}: {key[:60]}" for key in keys]
    if removed:
        _check_runs_without(files, removed)
    changed = {path: place for path, place in kept.items() if place != files[path]}
    return Source(kept, _relocked(lock, changed), tuple(removed))


def _remove(document: object) -> list[str]:
    """Take the keys out of ``document``, at any depth, and return them."""
    removed: list[str] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found = [key for key, member in value.items() if runs_code(key, member)]
            for key in found:
                del value[key]
            removed += found
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return removed


def _write(path: str, document: object, data: bytes, cache: Cache) -> Path:
    key = key_of({"what": "without remote code", "path": path, "of": Digest.of(data).hex})
    place = cache.derived(key, _SUFFIX)
    make_directory(place.parent)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_file(place, f"{text}\n".encode("utf-8", "surrogatepass"))
    return place


def _check_runs_without(files: Mapping[str, Path], removed: list[str]) -> None:
    data = read_capped(files[_CONFIG].resolve(), MAX_DOCUMENT_SIZE) if _CONFIG in files else b"{}"
    try:
        find_architecture(parse_json_object(data, what=_CONFIG))
    except UsageError as error:
        raise UnsafeContentError(
            f"{removed[0]}: the model does not run without the code that this names; its"
            " architecture is none that airpack knows",
            hint="look for a model of an architecture that loaders know by themselves",
        ) from error


def _relocked(lock: Lock, changed: Mapping[str, Path]) -> Lock:
    files = (
        replace(
            file,
            size=changed[file.path].stat().st_size,
            content=ContentId(SHA256, file_digest(changed[file.path]).hex),
        )
        if file.path in changed
        else file
        for file in lock.files
    )
    return replace(lock, files=tuple(files))
