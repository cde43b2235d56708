"""Headers of GGUF files that would mislead the engine: refused by the name of the file."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.gguf_files import rewrite_gguf, split_entries

from packager.errors import IntegrityError, MalformedError
from packager.format.gguf_header import MAX_HEADER_BYTES, parse_header
from packager.quantize.gguf_writer import encode_header, text
from packager.runtime.model_file import check_adapter_file, read_model_file


def test_a_file_without_an_architecture_is_refused_by_its_name(
    demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nameless.gguf"
    path.write_bytes(encode_header([text("general.type", "adapter")], []))

    with pytest.raises(MalformedError, match=r"nameless\.gguf: general\.architecture: missing"):
        read_model_file(path)
    with pytest.raises(MalformedError, match=r"nameless\.gguf: general\.architecture: missing"):
        check_adapter_file(path, read_model_file(demo_model))


def test_84_a_part_under_a_name_of_its_own_is_refused_before_the_engine_starts(
    demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "whole.gguf"
    rewrite_gguf(demo_model, path, split_entries(0, 3, 29))

    with pytest.raises(IntegrityError, match=r"whole\.gguf: says that it is one of 3 parts"):
        read_model_file(path)


def test_78_a_header_that_would_take_minutes_to_read_is_refused_at_its_limit() -> None:
    header = encode_header([text("general.architecture", "llama")], [])
    lying = header[:16] + (4096).to_bytes(8, "little")
    entries = b"".join(text_entry(f"k{number}", MAX_HEADER_BYTES // 8 - 100) for number in range(9))
    data = lying + entries

    with pytest.raises(MalformedError, match=rf"a header over {MAX_HEADER_BYTES} bytes"):
        parse_header(io.BytesIO(data), file_size=len(data), what="m.gguf")


def text_entry(key: str, size: int) -> bytes:
    """A key whose value is ``size`` spaces."""
    name = len(key).to_bytes(8, "little") + key.encode()
    return name + (8).to_bytes(4, "little") + size.to_bytes(8, "little") + b" " * size
