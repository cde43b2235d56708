"""What memory the engine takes for a model file, for the index to say."""

from __future__ import annotations

from pathlib import Path

from packager.errors import MalformedError
from packager.format.gguf_header import parse_header
from packager.format.memory import MemoryNeed
from packager.planning.memory import arrays_of, memory_need
from packager.runtime.engine import default_context
from packager.runtime.model_file import read_model_file
from packager.store.atomic import naming_refusals


def memory_of(path: Path) -> MemoryNeed | None:
    """What the GGUF model at ``path`` takes at the context it is run with.

    ``None`` for a kind of model whose needs are not known here. Raises what
    :func:`read_model_file` raises.
    """
    file = read_model_file(path)
    arrays = arrays_of(file.architecture)
    with naming_refusals(path), path.open("rb") as stream:
        size = path.stat().st_size
        header = parse_header(stream, file_size=size, what=str(path), arrays=arrays)
    context = min(default_context(file), file.context)
    try:
        return memory_need(header, context, makes_vectors=file.makes_vectors)
    except MalformedError:
        return None
