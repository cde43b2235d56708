"""A job as other hosts read it: a document in the folder of its files, and what it names there.

It says which model is to become which files, and nothing of how: a worker makes the plans again.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from packager.errors import HostError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.ggml_types import GgmlType
from packager.quantize import VERSION
from packager.quantize.executors.job import Job
from packager.quantize.imatrix import read_matrix
from packager.quantize.mix import Override, Overrides
from packager.quantize.types import file_type, tensor_type
from packager.quantize.wanted import Wanted
from packager.store.atomic import TEMPORARY_PREFIX, naming_refusals, read_capped, write_file

_MAX_SIZE = 64 << 20
HOW_TO_SHARE = "every worker must see the cache under the path that it has here: AIRPACK_CACHE"


@dataclass(frozen=True)
class SourceFile:
    """A file of the model as the host that orders sees it; ``modified`` in whole seconds."""

    name: str
    path: Path
    size: int
    modified: int

    @classmethod
    def seen(cls, name: str, path: Path) -> SourceFile:
        """The file as it is here; raises ``HostError`` where it is not."""
        with naming_refusals(path):
            status = path.stat()
        # Some filesystems that are shared keep no fractions.
        return cls(name, path, status.st_size, int(status.st_mtime))


@dataclass(frozen=True)
class OrderedFile:
    """One file to be filled, at ``path``; the matrix that ``wanted`` lacks lies at ``matrix``."""

    path: Path
    wanted: Wanted
    matrix: Path | None

    def read_wanted(self) -> Wanted:
        """What is wanted, with the matrix; raises what ``read_matrix`` raises."""
        return replace(self.wanted, matrix=read_matrix(self.matrix)) if self.matrix else self.wanted


@dataclass(frozen=True)
class Order:
    """``maker`` is what :func:`maker_here` says of the host that orders."""

    maker: str
    name: str
    sources: tuple[SourceFile, ...]
    files: tuple[OrderedFile, ...]


@dataclass(frozen=True)
class WrittenOrder:
    """Where an order lies, and the digest that no other order has."""

    path: Path
    digest: Digest


def maker_here() -> str:
    """What must be the same on all hosts for the same bytes; raises ``PackageNotFoundError``."""
    return (
        f"airpack {version('airpack')} (quantize {VERSION}), xllamacpp {version('xllamacpp')}, "
        f"{platform.machine()}"
    )


@contextmanager
def written_order(job: Job) -> Iterator[WrittenOrder]:
    """The order of ``job`` and its matrices as files beside the first of its files, for a while.

    Its digest is that of the source, of what is made of it, by which versions, and of this run.
    """
    folder = job.outs[0].path.absolute().parent
    with ExitStack() as stack:
        matrices = {file.matrix.digest: file.matrix for file in job.wanted if file.matrix}
        paths = {
            digest: stack.enter_context(_temporary(folder, digest, ".imatrix", matrix.encode()))
            for digest, matrix in matrices.items()
        }
        data = canonical.encode(_document(job, paths))
        digest = Digest.of(data)
        path = stack.enter_context(_temporary(folder, digest, ".order", data))
        yield WrittenOrder(path, digest)


@contextmanager
def _temporary(folder: Path, digest: Digest, suffix: str, data: bytes) -> Iterator[Path]:
    path = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{digest.hex}{suffix}"
    try:
        write_file(path, data)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _document(job: Job, matrices: Mapping[Digest, Path]) -> dict[str, Json]:
    return {
        # What another run has written, into files that are gone, must not count.
        "run": secrets.token_hex(16),
        "maker": maker_here(),
        "name": job.name,
        "sources": [
            _source_json(SourceFile.seen(name, path.resolve())) for name, path in job.files.items()
        ],
        "files": [
            {
                "path": str(out.path.absolute()),
                "matrix": str(matrices[wanted.matrix.digest]) if wanted.matrix else None,
                **_wanted_json(wanted),
            }
            for out, wanted in zip(job.outs, job.wanted, strict=True)
        ],
    }


def _source_json(source: SourceFile) -> Json:
    return {
        "name": source.name,
        "path": str(source.path),
        "size": source.size,
        "modified": source.modified,
    }


def _wanted_json(wanted: Wanted) -> dict[str, Json]:
    overrides = wanted.overrides
    return {
        "type": wanted.kind.name,
        "matrix_name": wanted.matrix_name or None,
        "overrides": [
            {"pattern": each.pattern, "type": each.type.name} for each in overrides.patterns
        ],
        "output": overrides.output.name if overrides.output else None,
        "token_embedding": overrides.token_embedding.name if overrides.token_embedding else None,
    }


def read_order(path: Path, digest: Digest) -> Order:
    """Read the order at ``path``.

    Raises ``HostError`` where it is not, or is another than that of ``digest``;
    ``MalformedError``.
    """
    data = read_capped(path, _MAX_SIZE)
    if Digest.of(data) != digest:
        raise HostError(f"{path}: not what was written there", hint=HOW_TO_SHARE)
    document = canonical.decode(data, what=path.name, max_size=_MAX_SIZE)
    fields = Fields.of(document, path.name)
    return Order(
        maker=fields.text("maker"),
        name=fields.text("name"),
        sources=fields.each("sources", _source),
        files=fields.each("files", _file),
    )


def _source(fields: Fields) -> SourceFile:
    return SourceFile(
        fields.text("name"),
        Path(fields.text("path")),
        fields.integer("size"),
        fields.integer("modified"),
    )


def _file(fields: Fields) -> OrderedFile:
    overrides = Overrides(
        fields.each("overrides", lambda row: Override(row.text("pattern"), _type(row, "type"))),
        _type(fields, "output") if fields.has("output") else None,
        _type(fields, "token_embedding") if fields.has("token_embedding") else None,
    )
    name = fields.optional_text("matrix_name") or ""
    matrix = fields.optional_text("matrix")
    return OrderedFile(
        path=Path(fields.text("path")),
        wanted=Wanted(file_type(fields.text("type")), overrides, matrix_name=name),
        matrix=Path(matrix) if matrix else None,
    )


def _type(fields: Fields, key: str) -> GgmlType:
    return tensor_type(fields.text(key))
