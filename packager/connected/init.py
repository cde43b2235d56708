"""``airpack init``: the first recipe for a model, with comments that teach the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.evidence.licence import stated_licence
from packager.connected.lock import CONFIG, read_folder_files, read_small_files
from packager.connected.source.hub import Hub
from packager.connected.source.local import list_folder
from packager.connected.variants.published_choice import Choice, preferred, published_choices
from packager.errors import UsageError
from packager.format.foreign_json import parse_json_object
from packager.format.recipe import parse_recipe
from packager.progress import Progress
from packager.quantize.architectures import check_supported

# Words that YAML 1.1 takes for booleans or null.
_NOT_TEXT = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
_LEVELS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")


def init_recipe(
    source: str,
    progress: Progress,
    *,
    recipe_folder: Path = Path(),
    cache: Cache | None = None,
    hub: Hub | None = None,
) -> str:
    """The text of a recipe, to be kept in ``recipe_folder``, for a hub repository or a folder.

    A folder of that name is meant before a repository. A model that cannot be quantized here is
    carried as it is. Raises ``UsageError`` where there is no model, ``HubError`` where the hub does
    not answer.
    """
    folder = Path(source)
    if folder.is_dir():
        model = _look_into(folder, recipe_folder)
    elif _LEVELS.match(source):
        model = _look_up(
            source, progress, cache or Cache.of_environment(), hub or Hub(progress=progress)
        )
    else:
        raise UsageError(
            f"{source[:200]!a} is neither a folder nor the name of a repository",
            hint="airpack init Qwen/Qwen3-0.6B",
        )
    text = _write(model)
    parse_recipe(text)
    return text


@dataclass(frozen=True)
class _Model:
    """What a recipe must say of a model. ``origin`` is the lines that name its source.

    ``published`` are its GGUF files, where there is nothing to quantize; ``obstacle`` is why it
    can only be carried as it is, where it can.
    """

    name: str
    origin: tuple[str, ...]
    licence: str | None
    published: tuple[Choice, ...]
    obstacle: str | None


def _look_into(folder: Path, recipe_folder: Path) -> _Model:
    paths = list_folder(folder)
    described = read_folder_files(folder, paths)
    published = published_choices(paths)
    obstacle = None if published else _obstacle(described.get(CONFIG), str(folder), paths)
    relative = os.path.relpath(folder.resolve(), recipe_folder.resolve())
    return _Model(
        name=_name(folder.resolve().name),
        origin=(f"path: {_quote(relative)}  # relative to this file",),
        licence=stated_licence(described),
        published=published,
        obstacle=obstacle,
    )


def _look_up(repository: str, progress: Progress, cache: Cache, hub: Hub) -> _Model:
    snapshot = hub.resolve(repository, "main")
    described = read_small_files(snapshot.commit, snapshot.files, cache, progress, hub)
    paths = [file.path for file in snapshot.files]
    published = published_choices(paths)
    obstacle = None if published else _obstacle(described.get(CONFIG), repository, paths)
    return _Model(
        name=_name(repository.rpartition("/")[2]),
        origin=(
            f"hub: {_quote(repository)}",
            "revision: main  # a branch, a tag or a commit; the lock pins the commit",
        ),
        licence=stated_licence(described),
        published=published,
        obstacle=obstacle,
    )


def _obstacle(config: bytes | None, source: str, paths: Sequence[str]) -> str | None:
    """Why the model of that ``config`` cannot be quantized here, in a few words, if it cannot."""
    if config is None:
        is_adapter = "adapter_config.json" in paths
        raise UsageError(
            f"{source}: has no {CONFIG}, so it is not a model that airpack knows",
            hint="an adapter is a variant in the recipe of its base: {name: NAME, format: lora, "
            "base: VARIANT, source: {path: DIR}}"
            if is_adapter
            else None,
        )
    try:
        check_supported(parse_json_object(config, what=CONFIG))
    except UsageError as error:
        return error.message
    return None


def _name(text: str) -> str:
    """A plain name made of ``text``."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63].rstrip("-._") or "model"


def _quote(text: str) -> str:
    """``text`` as a YAML scalar: single-quoted, where it is not plainly a word."""
    if text.lower() not in _NOT_TEXT and re.match(r"[A-Za-z][A-Za-z0-9_]*[A-Za-z0-9._/-]*\Z", text):
        return text
    return "'" + text.replace("'", "''") + "'"


_INCLUDE = """\
  # Which files travel; * stays within a folder. The default takes model*.safetensors, JSON,
  # tokenizer, chat template, licence and model card:
  #   include: ["model*.safetensors", "*.json", "tokenizer*", "LICENSE*", "README.md"]
  #   exclude: ["consolidated*"]"""
_PUBLISHED_INCLUDE = """\
  # What the variants name travels, of a split all parts; and licence and model card beside it."""
_QUANTIZED = """\
  - {name: q4_k_m, format: gguf, type: Q4_K_M}  # about 0.6 bytes a parameter
  - {name: q8_0, format: gguf, type: Q8_0}  # about 1.1 bytes a parameter, nearly lossless
  # - {name: original, format: safetensors}  # the source files as they are
  # - {name: w4a16, format: compressed-tensors, scheme: W4A16}  # for vLLM and transformers"""
_CARRIED = """\
  # It cannot be quantized here: {}
  - {{name: original, format: safetensors}}  # the source files as they are, for other engines"""
_MOST_OTHERS = 12


def _variants(model: _Model) -> str:
    if model.published:
        return _published_variants(model.published)
    if model.obstacle is not None:
        return _CARRIED.format(" ".join(model.obstacle.split()))
    return _QUANTIZED


def _published_variants(choices: Sequence[Choice]) -> str:
    """Lines for the models that a beginner wants, and, as comments, for the others."""
    chosen = preferred(choices)
    others = [choice for choice in choices if choice not in chosen]
    lines = [f"  - {_published_variant(choice)}" for choice in chosen]
    lines += [f"  # - {_published_variant(choice)}" for choice in others[:_MOST_OTHERS]]
    if len(others) > _MOST_OTHERS:
        lines.append(f"  # and {len(others) - _MOST_OTHERS} more")
    return "\n".join(lines)


def _published_variant(choice: Choice) -> str:
    name = choice.type or _name(Path(choice.file).stem)
    return f"{{name: {_quote(name)}, format: gguf, file: {_quote(choice.file)}}}"


def _write(model: _Model) -> str:
    if model.licence:
        licence = f"licence: {{allow: [{_quote(model.licence)}]}}  # what its model card states"
    else:
        licence = (
            "# The model card states no licence that can be read. Find out what it is; to have\n"
            "# it enforced at each lock:  licence: {allow: [apache-2.0]}"
        )
    origin = "\n".join(f"  {line}" for line in model.origin)
    variants = _variants(model)
    include = _PUBLISHED_INCLUDE if model.published else _INCLUDE
    return f"""\
# A recipe of airpack. Next:  airpack lock THIS-FILE  then  airpack build THIS-FILE -o DIR
name: {_quote(model.name)}
version: '1.0.0'
sequence: 1  # raise it with each release: hosts refuse to go back
source:
{origin}
{include}
{licence}
variants:
{variants}
smoke:  # asked at the build; the isolated host must get the same answers
  prompts: ["The capital of France is", "Once upon a time", "def fibonacci(n):"]
  max_tokens: 32
targets:  # hosts to carry airpack's own wheels for
  - {{platform: linux_x86_64, python: ['3.10', '3.11', '3.12', '3.13'], glibc: '2.28'}}
medium: {{volume_size: auto}}  # auto fits every medium, FAT32 too; or a size, as 4GiB
signers: 1  # signatures that the release needs
expires: null  # or a date, as 2027-12-31: hosts refuse to install it later
"""
