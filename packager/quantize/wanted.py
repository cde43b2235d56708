"""What a file shall be: its type, the types of single tensors, the matrix to weigh by."""

from __future__ import annotations

from dataclasses import dataclass, field

from packager.errors import MalformedError, UsageError
from packager.format.ggml_types import GgmlType
from packager.quantize.gguf_writer import Entry, text, uint32
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.mix import HOW_TO_GET_A_MATRIX, Choice, Overrides, is_quantizable
from packager.quantize.types import LATTICE_TYPES, FileType, file_type

# ``llama-quantize`` writes no longer ones (``llama_model_kv_override.val_str``).
_MAX_TEXT = 127
# No model has inputs of a hundred million; ggml ends the process where squares of them overflow.
_MAX_MEAN = 1e16


@dataclass(frozen=True, eq=False)
class Wanted:
    """One file to be written. ``matrix_name`` is what its metadata call the ``matrix``.

    ``is_promised``: there will be a matrix, and this is to be planned as if it were here.
    """

    kind: FileType
    overrides: Overrides = field(default_factory=Overrides)
    matrix: ImportanceMatrix | None = None
    matrix_name: str = ""
    is_promised: bool = False

    @classmethod
    def of(cls, type_name: str) -> Wanted:
        """A file of the type ``type_name`` and nothing else; raises ``UsageError``."""
        return cls(file_type(type_name))

    @property
    def quantizes(self) -> bool:
        """Whether any of its tensors may be other than plain floats."""
        return self.kind.quantizes or self.overrides != Overrides()

    @property
    def has_matrix(self) -> bool:
        """Whether a matrix decides on types."""
        return self.is_promised or self.matrix is not None

    def entries(self) -> tuple[Entry, ...]:
        """What the metadata say of the matrix: what ``llama-quantize`` does, and its digest."""
        matrix = self.matrix
        if matrix is None:
            return ()
        entries = [text("quantize.imatrix.file", _cut(self.matrix_name))]
        if matrix.datasets:
            entries.append(text("quantize.imatrix.dataset", _cut(matrix.datasets[0])))
        entries.append(uint32("quantize.imatrix.entries_count", len(matrix.tensors)))
        if matrix.chunk_count:
            entries.append(uint32("quantize.imatrix.chunks_count", matrix.chunk_count))
        entries.append(text("quantize.imatrix.sha256", matrix.digest.hex))
        return tuple(entries)

    def importance(
        self, name: str, shape: tuple[int, ...], choice: Choice
    ) -> TensorImportance | None:
        """What weighs the columns of the tensor ``name``, if the matrix has it.

        Raises ``UsageError`` where ``choice`` cannot do without, or the matrix is of a model of
        another shape, ``MalformedError`` for means that no model has.
        """
        found = self.matrix.tensors.get(name) if self.matrix else None
        if found is None or not is_quantizable(name, shape):
            if choice.needs_matrix and not self.is_promised:
                raise _missing(name, choice.type, has_matrix=self.matrix is not None)
            return None
        experts = shape[0] if len(shape) == 3 else 1
        if found.sums.size != experts * shape[-1] or len(found.counts) not in (1, experts):
            raise UsageError(
                f"importance matrix: {found.sums.size} values for {name}, which has "
                f"{experts * shape[-1]} columns",
                hint="it was made of another model; make it of this one",
            )
        importance = found.of_experts(experts)
        if choice.type in LATTICE_TYPES:
            _check_means(name, importance)
        return importance


def _check_means(name: str, importance: TensorImportance) -> None:
    for expert in range(len(importance.sums)):
        if importance.means(expert).max() > _MAX_MEAN:
            raise MalformedError(f"importance matrix: {name}: a mean square beyond any model's")


def _missing(name: str, kind: GgmlType, *, has_matrix: bool) -> UsageError:
    if has_matrix:
        return UsageError(
            f"importance matrix: has nothing on {name}, which cannot be {kind.name} without",
            hint="calibrate on a longer text, or give that tensor another type in overrides",
        )
    return UsageError(
        f"{name}: cannot be {kind.name} without an importance matrix", hint=HOW_TO_GET_A_MATRIX
    )


def _cut(value: str) -> str:
    """At most as many bytes as llama.cpp's own tool writes."""
    return value.encode("utf-8")[:_MAX_TEXT].decode("utf-8", errors="ignore")
