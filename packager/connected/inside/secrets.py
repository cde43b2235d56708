"""Nothing secret travels: tokens, keys, and what tells of the host that built the bundle.

It is looked for in what airpack writes and in what is text; of weights in the header, for the rest
are numbers. A find names the file and what kind of secret it is, and never the secret.
"""

from __future__ import annotations

import getpass
import io
import os
import re
import socket
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packager.connected.packing.layout import Member
from packager.errors import UnsafeContentError
from packager.format.gguf_header import parse_header
from packager.format.safetensors_header import PREFIX_SIZE, header_end
from packager.runtime.content import MAX_DOCUMENT_SIZE
from packager.store.atomic import naming_refusals

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_LEAST_VALUE = 8  # characters; what is shorter stands everywhere by chance
_LEAST_DISTINCT = 10  # characters that differ, in a token that is none: hf_xxxxxxxx

# What begins such a token or key (cheap to look for), and all of it.
_SHAPES = {
    "a Hugging Face token": (b"hf_", rb"hf_[A-Za-z0-9]{30,}\b"),
    "a GitHub token": (b"gh", rb"gh[pousr]_[A-Za-z0-9]{36,}\b"),
    "a fine-grained GitHub token": (b"github_pat_", rb"github_pat_[A-Za-z0-9_]{50,}\b"),
    "a GitLab token": (b"glpat-", rb"glpat-[A-Za-z0-9_-]{20,}\b"),
    "an AWS access key": (b"A", rb"(?:AKIA|ASIA)[A-Z0-9]{9}(?!EXAMPLE)[A-Z0-9]{7}\b"),
    "a key of OpenAI or Anthropic": (b"sk-", rb"sk-(?:ant|proj|svcacct)-[A-Za-z0-9_-]{40,}"),
    "a Google API key": (b"AIza", rb"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    "a Slack token": (b"xox", rb"xox[abeprs]-[A-Za-z0-9-]{20,}"),
    "a private key": (
        b"PRIVATE KEY-----",
        (
            rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\\n|\s)+(?:[A-Za-z-]+: [^\n]+\s+)*"
            rb"[A-Za-z0-9+/=\\\s]{64,}"
        ),
    ),
}
# Where one begins: at a word, behind a line feed as JSON writes it, or a colon as addresses do.
_BEGIN = rb"(?:\b|(?=-)|(?<=\\[bfnrt])|(?<=%[0-9A-Fa-f]{2}))"
_PATTERNS = {kind: (begin, re.compile(_BEGIN + shape)) for kind, (begin, shape) in _SHAPES.items()}

# Homes and names that many hosts have; in a text of others they tell nothing of this one.
_COMMON_NAMES = frozenset((
    "admin", "airpack", "build", "builder", "builds", "bundle", "click", "cryptography", "debian",
    "desktop", "docker", "engine", "gitlab", "jenkins", "laptop", "license", "linux", "llama",
    "localhost", "medium", "model", "models", "nobody", "openssl", "package", "payload", "python",
    "recipe", "release", "runner", "security", "sender", "server", "service", "setup", "ubuntu",
    "user", "vagrant", "variant", "worker", "workspace", "workstation",
))  # fmt: skip
_LEAST_NAME = 5


@dataclass(frozen=True)
class Secrets:
    """What must not travel, by kind: tokens and telling paths, the ``values``, nowhere at all.

    Other paths of this host, the ``places``, and the ``names`` of its user and of itself not in
    the documents of the bundle: in texts of others they stand by chance.
    """

    values: Mapping[str, bytes]
    places: Mapping[str, bytes]
    names: Mapping[str, bytes]

    @classmethod
    def of_environment(cls, folders: Mapping[str, Path], said: str) -> Secrets:
        """Those of this host, and the ``folders`` that a build works in.

        ``said`` is what people wrote to be in the bundle: a name in it is no secret.
        """
        values = {f"the value of {key}": os.environ.get(key, "") for key in _TOKEN_VARIABLES}
        places = {what: str(folder.absolute()) for what, folder in folders.items()}
        with suppress(RuntimeError):  # a user without a home
            places["the home directory of the build host"] = str(Path.home())
        names = {"the host name of the build host": socket.gethostname().partition(".")[0]}
        with suppress(OSError, KeyError):  # a user without a name
            names["the user name of the build host"] = getpass.getuser()
        values |= {kind: place for kind, place in places.items() if _is_telling(place)}
        return cls(
            {kind: os.fsencode(v) for kind, v in values.items() if len(v) >= _LEAST_VALUE},
            {kind: os.fsencode(place) for kind, place in places.items() if place != "/"},
            {kind: name.encode() for kind, name in names.items() if _tells(name, said)},
        )


def _is_telling(place: str) -> bool:
    """Whether hardly another host has such a path: /home/ada, and neither /root nor /home/user."""
    path = PurePosixPath(place)
    return len(path.parts) > 2 and path.name.lower() not in _COMMON_NAMES


def _tells(name: str, said: str) -> bool:
    return (
        len(name) >= _LEAST_NAME
        and name.lower() not in _COMMON_NAMES
        and name.lower() not in said.lower()
    )


def check_documents(documents: Mapping[str, bytes], secrets: Secrets) -> None:
    """Refuse a secret in what was written for this bundle; raises ``UnsafeContentError``."""
    for name, data in documents.items():
        kinds = (*_shapes(data), *_held(data, secrets.values))
        _refuse(name, (*kinds, *_words(data, {**secrets.places, **secrets.names})))


def check_members(members: Iterable[Member], secrets: Secrets) -> None:
    """Refuse a secret in a file of the payload; raises ``UnsafeContentError``."""
    for member in members:
        for name, data in _texts(member):
            _refuse(name, (*_shapes(data), *_held(data, secrets.values)))


def _texts(member: Member) -> Iterator[tuple[str, bytes]]:
    """What of a file can be text, with the name that errors call it by."""
    name = PurePosixPath(member.path).name
    with naming_refusals(member.source), member.source.open("rb") as file:
        if name.endswith(".gguf"):
            header = parse_header(file, file_size=member.size, what=member.path)
            file.seek(0)
            yield member.path, file.read(header.data_begin)
        elif name.endswith(".safetensors"):
            prefix = file.read(PREFIX_SIZE)
            end = header_end(prefix, file_size=member.size, what=member.path)
            yield member.path, prefix + file.read(end - len(prefix))
        elif name.endswith(".whl"):
            yield from _wheel_texts(member.path, file.read()) if name.startswith("airpack-") else ()
        elif member.size <= MAX_DOCUMENT_SIZE:
            yield member.path, file.read()


def _wheel_texts(path: str, wheel: bytes) -> Iterator[tuple[str, bytes]]:
    """airpack's own, put together here. The others came as they are from a package index."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            yield f"{path}: {name}", archive.read(name)


def _shapes(data: bytes) -> Iterator[str]:
    for kind, (begin, pattern) in _PATTERNS.items():
        if begin in data:
            found = pattern.finditer(data)
            yield from (kind for match in found if len({*match[0]}) >= _LEAST_DISTINCT)


def _held(data: bytes, values: Mapping[str, bytes]) -> Iterator[str]:
    return (kind for kind, value in values.items() if value in data)


def _words(data: bytes, words: Mapping[str, bytes]) -> Iterator[str]:
    """Names and paths that stand for themselves, and are no part of a longer one."""
    for kind, word in words.items():
        if word in data and re.search(rb"(?<![\w./-])" + re.escape(word) + rb"(?![\w-])", data):
            yield kind


def _refuse(name: str, kinds: Iterable[str]) -> None:
    for kind in kinds:
        raise UnsafeContentError(
            f"{name}: holds {kind}, which must not travel",
            hint="take it out of the file, or leave the file out by source.exclude",
        )
