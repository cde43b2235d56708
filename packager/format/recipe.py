"""The recipe: the YAML a person writes to say which model travels, in which variants, to whom.

Parsing judges the form alone. What this version of airpack can build of it is asked on the
connected side, which knows the quantizations and the architectures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from packager.errors import AirpackError, ParseError
from packager.format.digest import Digest
from packager.format.fields import Fields, recipe_fields
from packager.format.globs import matches
from packager.format.recipe_values import (
    gguf_pattern,
    matching,
    optional_type_of,
    path_of,
    printable,
    source_patterns,
    tensor_types,
    type_of,
)
from packager.format.sizes import parse_size
from packager.format.target import Target
from packager.format.yaml_text import parse_yaml

MAX_RECIPE_SIZE = 256 << 10
MAX_VARIANTS = 64
MAX_PROMPTS = 64
MAX_PROMPT_CHARACTERS = 16_384

GGUF = "gguf"
SAFETENSORS = "safetensors"
COMPRESSED_TENSORS = "compressed-tensors"
LORA = "lora"
FORMATS = (GGUF, SAFETENSORS, COMPRESSED_TENSORS, LORA)
ENGINES = ("llama.cpp",)

DEFAULT_INCLUDE = (
    "model*.safetensors", "*.json", "tokenizer*", "vocab.*", "merges.txt", "*.jinja",
    "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "README.md",
    "*_Pooling/config.json",  # how sentence-transformers make one vector of a text
)  # fmt: skip
DEFAULT_PROMPTS = ("The capital of France is", "Once upon a time", "def fibonacci(n):")

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,99}\Z")
_PLATFORM = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_PYTHON = re.compile(r"3\.[0-9]{1,2}\Z")
_GLIBC = re.compile(r"2\.[0-9]{1,2}\Z")
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%\Z")


@dataclass(frozen=True)
class HubSource:
    """A repository on the hub. ``revision`` is whatever names a commit: a branch, a tag."""

    repository: str
    revision: str


@dataclass(frozen=True)
class FolderSource:
    """A local folder, relative to the recipe's own unless absolute."""

    path: str


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: where PEFT's files of it are, and the variant that it changes."""

    source: HubSource | FolderSource
    base: str


@dataclass(frozen=True)
class Variant:
    """One form the model travels in.

    ``type`` names a GGUF quantization (``Q4_K_M``) and ``scheme`` one of compressed-tensors
    (``W4A16``); each is ``None`` for the other formats.

    ``file`` is set for a GGUF model that is published as such, instead of a type: the path of
    its file in the source, of its first shard, or a pattern that only one such model has.

    ``overrides`` are pairs, in the order they are tried, of a pattern of tensor names in the GGUF
    file and the type of those tensors (``Q6_K``). ``output`` and ``token_embedding`` are the
    types of these two, ``None`` where the recipe leaves them to ``type``. ``adapter`` is set for
    the format ``lora``.
    """

    name: str
    format: str
    type: str | None
    scheme: str | None
    overrides: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    token_embedding: str | None = None
    file: str | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Calibration:
    """What to gather statistics on before quantizing, or what was gathered before.

    ``text`` is the path of a text, ``matrix`` that of a ready importance matrix; each is relative
    to the recipe, and ``None`` where the other is given. ``imatrix`` says whether an importance
    matrix is made of the text.
    """

    text: str | None
    imatrix: bool
    matrix: str | None = None

    @property
    def gives_matrix(self) -> bool:
        """Whether there will be an importance matrix to quantize with."""
        return self.imatrix or self.matrix is not None


@dataclass(frozen=True)
class QualityGate:
    """A text to measure on, and how much worse a variant may be: millionths of perplexity."""

    text: str
    max_increase_ppm: int


@dataclass(frozen=True)
class Smoke:
    """What the installed model is asked. ``text`` is a path, relative to the recipe, of a text
    whose perplexity is measured; ``None`` where the recipe names none.
    """

    prompts: tuple[str, ...]
    max_tokens: int
    text: str | None


@dataclass(frozen=True)
class Runtime:
    """What runs the model there, and wheels to carry beside it."""

    engine: str
    extra_wheels: tuple[str, ...]


@dataclass(frozen=True)
class Medium:
    """``volume_size`` in bytes, ``None`` for what fits every medium; ``parity`` volumes."""

    volume_size: int | None
    parity: int


DEFAULT_TARGETS = (Target("linux_x86_64", ("3.10", "3.11", "3.12", "3.13"), "2.28"),)


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe. ``digest`` is that of the very bytes it was written in."""

    digest: Digest
    name: str
    version: str
    sequence: int
    source: HubSource | FolderSource
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    licences: tuple[str, ...]
    variants: tuple[Variant, ...]
    calibration: Calibration | None
    quality: QualityGate | None
    smoke: Smoke
    targets: tuple[Target, ...]
    runtime: Runtime
    medium: Medium
    signers: int
    expires: str | None = field(default=None)
    signed_by: str | None = None  # the publisher's public key, relative to the recipe

    def wants(self, path: str) -> bool:
        """Whether the file ``path`` of the source travels."""
        return matches(path, self.include) and not matches(path, self.exclude)

    @property
    def texts(self) -> tuple[str, ...]:
        """The paths of the texts that the recipe names, each once."""
        named = (
            self.smoke.text,
            self.calibration.text if self.calibration else None,
            self.quality.text if self.quality else None,
        )
        return tuple(dict.fromkeys(path for path in named if path is not None))


def parse_recipe(data: bytes | str, *, where: str = "recipe") -> Recipe:
    """Read a recipe; raises ``ParseError`` that says where, as ``recipe: variants[1].type``."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    fields = recipe_fields(parse_yaml(raw, where=where, max_size=MAX_RECIPE_SIZE), where)
    fields.only(
        "name", "version", "sequence", "source", "licence", "variants", "calibrate", "quality",
        "smoke", "targets", "runtime", "medium", "signers", "expires",
    )  # fmt: skip
    source = fields.mapping("source")
    return Recipe(
        digest=Digest.of(raw),
        name=fields.bare_name("name"),
        version=fields.bare_name("version", default="1.0.0"),
        sequence=fields.integer("sequence", 1, least=1),
        source=_parse_source(source),
        include=source_patterns(source, "include", DEFAULT_INCLUDE),
        exclude=source_patterns(source, "exclude", ()),
        licences=_parse_licences(fields.optional_mapping("licence")),
        variants=_parse_variants(fields),
        calibration=_parse_calibration(fields) if fields.has("calibrate") else None,
        quality=_parse_quality(fields) if fields.has("quality") else None,
        smoke=_parse_smoke(fields.optional_mapping("smoke")),
        targets=_parse_targets(fields),
        runtime=_parse_runtime(fields.optional_mapping("runtime")),
        medium=_parse_medium(fields.optional_mapping("medium")),
        signers=fields.integer("signers", 1, least=1, most=100),
        expires=fields.timestamp("expires") if fields.has("expires") else None,
        signed_by=path_of(source, "signed_by") if source.has("signed_by") else None,
    )


def _parse_source(fields: Fields) -> HubSource | FolderSource:
    fields.only("hub", "path", "revision", "include", "exclude", "signed_by")
    if fields.has("hub") == fields.has("path"):
        raise fields.refuse("hub", "name either hub or path, one of them")
    if fields.has("path"):
        if fields.has("revision"):
            raise fields.refuse("revision", "a local folder has none")
        return FolderSource(path_of(fields, "path"))
    repository = matching(
        fields, "hub", fields.text("hub"), _REPOSITORY, "a repository, as Qwen/Qwen3-0.6B"
    )
    return HubSource(repository, printable(fields, "revision", fields.text("revision", "main")))


def _parse_licences(fields: Fields) -> tuple[str, ...]:
    fields.only("allow")
    licences = tuple(licence.lower() for licence in fields.texts("allow", ()))
    for index, licence in enumerate(licences):
        matching(fields, f"allow[{index}]", licence, _LICENCE, "a licence id, as apache-2.0")
    return licences


def _parse_variants(fields: Fields) -> tuple[Variant, ...]:
    variants = fields.each("variants", _parse_variant)
    if not 0 < len(variants) <= MAX_VARIANTS:
        raise fields.refuse("variants", f"{len(variants)} of them; there must be 1 to 64")
    for index, variant in enumerate(variants):
        if variant.name in (earlier.name for earlier in variants[:index]):
            raise fields.refuse(f"variants[{index}].name", f"a second {variant.name!r}")
    models = [variant.name for variant in variants if variant.format == GGUF]
    for index, variant in enumerate(variants):
        if variant.adapter is not None and variant.adapter.base not in models:
            raise fields.refuse(
                f"variants[{index}].base", f"{variant.adapter.base!r} is no variant of format gguf"
            )
    return variants


def _parse_variant(fields: Fields) -> Variant:
    fields.only("name", "format", *_OWNERS)
    form = fields.text("format")
    if form not in FORMATS:
        raise fields.refuse("format", f"{form[:40]!a} is not one of {', '.join(FORMATS)}")
    for key, owner in _OWNERS.items():
        if fields.has(key) and form != owner:
            raise fields.refuse(key, f"belongs to the format {owner}, not to {form}")
    published = fields.has("file")
    for key in _QUANTIZING:
        if published and fields.has(key):
            raise fields.refuse(key, "is of what is quantized here; file is published so already")
    return Variant(
        name=fields.bare_name("name"),
        format=form,
        type=type_of(fields, "type") if form == GGUF and not published else None,
        scheme=type_of(fields, "scheme") if form == COMPRESSED_TENSORS else None,
        overrides=tensor_types(fields.optional_mapping("overrides")),
        output=optional_type_of(fields, "output"),
        token_embedding=optional_type_of(fields, "token_embedding"),
        file=gguf_pattern(fields, "file") if published else None,
        adapter=_parse_adapter(fields) if form == LORA else None,
    )


def _parse_adapter(fields: Fields) -> Adapter:
    source = fields.mapping("source")
    source.only("hub", "path", "revision")
    return Adapter(_parse_source(source), fields.bare_name("base"))


_QUANTIZING = ("type", "overrides", "output", "token_embedding")
_OWNERS = (
    dict.fromkeys((*_QUANTIZING, "file"), GGUF)
    | {"scheme": COMPRESSED_TENSORS}
    | dict.fromkeys(("source", "base"), LORA)
)


def _parse_calibration(fields: Fields) -> Calibration:
    entry = fields.mapping("calibrate")
    entry.only("text", "imatrix")
    if isinstance(entry.values.get("imatrix"), str):
        if entry.has("text"):
            raise entry.refuse("text", "is not needed where imatrix names a ready matrix")
        return Calibration(None, imatrix=False, matrix=path_of(entry, "imatrix"))
    return Calibration(path_of(entry, "text"), entry.flag("imatrix", False))


def _parse_quality(fields: Fields) -> QualityGate:
    entry = fields.mapping("quality")
    entry.only("text", "max_perplexity_increase")
    if isinstance(entry.values.get("max_perplexity_increase"), int | float):
        raise entry.refuse("max_perplexity_increase", "expected text, as 5%")
    percent = entry.text("max_perplexity_increase")
    match = _PERCENT.match(percent)
    if not match:
        raise entry.refuse("max_perplexity_increase", f"{percent[:40]!a} is not a share, as 5%")
    ppm = int(match[1]) * 10_000 + int((match[2] or "").ljust(4, "0"))
    return QualityGate(path_of(entry, "text"), ppm)


def _parse_smoke(fields: Fields) -> Smoke:
    fields.only("prompts", "max_tokens", "text")
    prompts = fields.texts("prompts", DEFAULT_PROMPTS)
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise fields.refuse("prompts", f"{len(prompts)} of them; there must be 1 to {MAX_PROMPTS}")
    for index, prompt in enumerate(prompts):
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise fields.refuse(f"prompts[{index}]", f"over {MAX_PROMPT_CHARACTERS} characters")
    return Smoke(
        prompts=prompts,
        max_tokens=fields.integer("max_tokens", 32, least=1, most=4096),
        text=path_of(fields, "text") if fields.has("text") else None,
    )


def _parse_targets(fields: Fields) -> tuple[Target, ...]:
    if not fields.has("targets"):
        return DEFAULT_TARGETS
    targets = fields.each("targets", _parse_target)
    if not 0 < len(targets) <= 16:
        raise fields.refuse("targets", f"{len(targets)} of them; there must be 1 to 16")
    return targets


def _parse_target(fields: Fields) -> Target:
    fields.only("platform", "python", "glibc")
    default = DEFAULT_TARGETS[0]
    pythons = fields.texts("python", default.python)
    if not 0 < len(pythons) <= 16:
        raise fields.refuse("python", f"{len(pythons)} of them; there must be 1 to 16")
    for index, python in enumerate(pythons):
        matching(fields, f"python[{index}]", python, _PYTHON, "a Python, as '3.11'")
    return Target(
        platform=matching(
            fields, "platform", fields.text("platform"), _PLATFORM, "a platform, as linux_x86_64"
        ),
        python=pythons,
        glibc=matching(
            fields, "glibc", fields.text("glibc", default.glibc), _GLIBC, "a glibc, as '2.28'"
        ),
    )


def _parse_runtime(fields: Fields) -> Runtime:
    fields.only("engine", "extra_wheels")
    engine = fields.text("engine", ENGINES[0])
    if engine not in ENGINES:
        raise fields.refuse("engine", f"{engine[:40]!a} is not one of {', '.join(ENGINES)}")
    wheels = fields.texts("extra_wheels", ())
    for index, wheel in enumerate(wheels):
        printable(fields, f"extra_wheels[{index}]", wheel)
    return Runtime(engine, wheels)


def _parse_medium(fields: Fields) -> Medium:
    fields.only("volume_size", "parity")
    return Medium(_parse_volume_size(fields), fields.integer("parity", 0, most=255))


def _parse_volume_size(fields: Fields) -> int | None:
    if not fields.has("volume_size") or fields.values["volume_size"] == "auto":
        return None
    if isinstance(fields.values["volume_size"], int):
        return fields.integer("volume_size", least=1)
    try:
        return parse_size(fields.text("volume_size"))
    except ParseError:
        raise
    except AirpackError as error:
        raise fields.refuse("volume_size", error.message) from None
