"""What the documents are made from: values that the build has, and none that it had to guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.lock import HubCommit, Lock
from packager.format.recipe import Recipe
from packager.format.statement import FallbackTensor


@dataclass(frozen=True)
class Package:
    """What others made, and under which licence.

    ``texts`` are the licence texts that come with it: paths in the wheel, or files beside it.
    ``url`` is its package URL (purl), where it has one.
    """

    name: str
    version: str | None
    licence: str | None
    texts: tuple[str, ...]
    url: str | None


@dataclass(frozen=True)
class Part:
    """A file that airpack is set up from. ``bundle`` is the earlier one that carried it, if any."""

    name: str
    digest: Digest
    package: Package | None
    bundle: str | None = None


@dataclass(frozen=True)
class Making:
    """How a variant was made: by which importance matrix, and which tensors got another type than
    asked for, since their rows did not fit it.

    ``rendered`` is what its chat template made of the first smoke prompt, if it has one.
    """

    matrix: Digest | None
    fallbacks: tuple[FallbackTensor, ...]
    rendered: str | None = None


@dataclass(frozen=True)
class Materials:
    """All that the documents of ``bundle`` speak of.

    ``lock`` is the one that travels. ``makings`` are by variant, ``texts`` the licences that each
    licence text of the source was found to be, by path. ``architecture`` and ``family`` are what
    ``config.json`` calls the model. ``command`` is what was asked for, ``accepted_by`` who accepted
    the licences of gated sources.
    """

    bundle: Bundle
    recipe: Recipe
    lock: Lock
    parts: tuple[Part, ...]
    makings: Mapping[str, Making]
    texts: Mapping[str, frozenset[str]]
    architecture: str | None
    family: str | None
    command: tuple[str, ...]
    accepted_by: str | None


def package_url(source: HubCommit, path: str = "") -> str:
    """The address of a commit on the hub, or of a file in it, whichever mirror served it (purl)."""
    subpath = f"#{quote(path)}" if path else ""
    return f"pkg:huggingface/{source.repository}@{source.revision}{subpath}"
