"""Hostile GGUF headers (cases 75 to 83 of the catalogue of bad inputs)."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import (
    AirpackError,
    IntegrityError,
    MalformedError,
    TrailingDataError,
    TruncatedError,
)
from packager.format.gguf_header import GgufArray, GgufHeader, parse_header

U32, STRING, ARRAY, U64 = 4, 8, 9, 10


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, payload: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + payload


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(
    pairs: Collection[bytes] = (),
    tensors: Collection[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, pair_count)
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def parse(data: bytes, arrays: Collection[str] = ()) -> GgufHeader:
    return parse_header(io.BytesIO(data), file_size=len(data), what="m.gguf", arrays=arrays)


def refused(data: bytes, error: type[AirpackError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        parse(data)
    assert "m.gguf" in caught.value.message


NAME = pair("general.architecture", STRING, string("llama"))
LIST = pair("tokens", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + string("b"))
ONE = tensor("a", (32, 2), 8, 0)
TWO = tensor("b", (4,), 0, 96)
GOOD = gguf([NAME, LIST], [ONE, TWO], bytes(96 + 16))


@pytest.mark.parametrize("version", [2, 3])
def test_a_good_file_gives_its_metadata_and_tensors(version: int) -> None:
    header = parse(gguf([NAME, LIST], [ONE, TWO], bytes(96 + 16), version=version))

    assert header.version == version
    assert header.architecture == "llama"
    assert header.metadata["tokens"] == GgufArray(STRING, 2, None)
    assert [(t.name, t.type.name, t.shape, t.size) for t in header.tensors] == [
        ("a", "Q8_0", (32, 2), 68),
        ("b", "F32", (4,), 16),
    ]
    assert header.tensors[1].offset == header.data_begin + 96
    assert header.parameters == 68


def test_arrays_are_kept_where_asked_for() -> None:
    assert parse(GOOD, arrays=["tokens"]).metadata["tokens"] == GgufArray(STRING, 2, ("a", "b"))


@pytest.mark.parametrize("magic", [b"", b"GG", b"GGUX", b"FUGG", b"ggml"])
def test_75_bad_magic_is_refused(magic: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(magic + GOOD[4:])


@pytest.mark.parametrize("version", [0, 1, 4, 1000])
def test_75_an_unknown_version_is_refused(version: int) -> None:
    refused(gguf(version=version), MalformedError, f"GGUF version {version}; known are 2 and 3")


@pytest.mark.parametrize("version", [3 << 24, 2 << 24])
def test_75_a_version_with_its_bytes_swapped_is_refused_as_big_endian(version: int) -> None:
    refused(gguf(version=version), MalformedError, "a big-endian GGUF file")


@pytest.mark.parametrize("counts", [(2**64 - 1, 0), (0, 2**64 - 1), (2**40, 1)])
def test_76_negative_and_absurd_counts_are_refused(counts: tuple[int, int]) -> None:
    refused(gguf(counts=counts), MalformedError, "more than the limit")


def test_77_a_string_longer_than_the_file_is_refused() -> None:
    payload = struct.pack("<Q", 1 << 20) + b"x"
    refused(gguf([pair("k", STRING, payload)]), IntegrityError, "limit|end")


def test_77_a_key_of_gigabytes_is_refused() -> None:
    refused(gguf([struct.pack("<Q", 1 << 33)]), MalformedError, "limit")


@pytest.mark.parametrize("kind", [0, U32, STRING, ARRAY])
def test_78_an_array_of_2_to_the_30_is_refused(kind: int) -> None:
    refused(gguf([pair("k", ARRAY, struct.pack("<IQ", kind, 1 << 30))]), MalformedError, "limit")


def test_78_an_array_longer_than_the_file_is_refused() -> None:
    refused(gguf([pair("k", ARRAY, struct.pack("<IQ", U64, 1 << 20))]), TruncatedError, "end")


def test_78_arrays_within_arrays_without_end_are_refused() -> None:
    nested = struct.pack("<IQ", ARRAY, 1) * 1000
    refused(gguf([pair("k", ARRAY, nested)]), MalformedError, "nested")


def test_78_arrays_within_an_array_are_taken_and_kept_where_asked_for() -> None:
    inner = struct.pack("<IQ2H", 2, 2, 1, 2), struct.pack("<IQ", STRING, 1) + string("a")
    pairs = pair("lists", ARRAY, struct.pack("<IQ", ARRAY, 2) + b"".join(inner))
    assert parse(gguf([pairs])).metadata["lists"] == GgufArray(ARRAY, 2, None)
    kept = GgufArray(2, 2, (1, 2)), GgufArray(STRING, 1, ("a",))
    assert parse(gguf([pairs]), ["lists"]).metadata["lists"] == GgufArray(ARRAY, 2, kept)
    deeper = struct.pack("<IQ", ARRAY, 1) * 2 + inner[0]
    refused(gguf([pair("lists", ARRAY, deeper)]), MalformedError, "nested too deep in 'lists'")


def test_values_are_read_as_what_they_are_and_lists_not_asked_for_are_not_kept() -> None:
    numbers = struct.pack("<IQ2B", 0, 2, 1, 2)
    pairs = [pair("t", 7, b"\1"), pair("f", 7, b"\0"), pair("n", 11, b"\xff" * 8)]
    metadata = parse(gguf([*pairs, pair("l", ARRAY, numbers), pair("m", ARRAY, numbers)]), ["m"])
    assert metadata.metadata == {
        "t": True, "f": False, "n": -1, "l": GgufArray(0, 2, None), "m": GgufArray(0, 2, (1, 2)),
    }  # fmt: skip


def test_the_least_shape_and_alignment_are_taken() -> None:
    one = pair("general.alignment", U32, struct.pack("<I", 1))
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + one + tensor("a", (1, 1, 1, 1), 0, 0)
    assert parse(head + bytes(4)).tensors[0].offset == len(head)


def test_79_a_duplicate_key_is_refused() -> None:
    refused(gguf([NAME, NAME]), MalformedError, "twice")


def test_79_a_duplicate_tensor_is_refused() -> None:
    again = tensor("a", (32, 2), 8, 96)
    refused(gguf([], [ONE, again], bytes(192)), MalformedError, "twice")


@pytest.mark.parametrize("alignment", [0, 3, 48, 1 << 31])
def test_80_an_alignment_that_is_not_a_power_of_two_is_refused(alignment: int) -> None:
    key = pair("general.alignment", U32, struct.pack("<I", alignment))
    refused(gguf([key], [ONE], bytes(96)), MalformedError, "alignment")


@pytest.mark.parametrize(
    ("kind", "payload"), [(U64, struct.pack("<Q", 32)), (STRING, string("32")), (7, b"\1")]
)
def test_80_an_alignment_of_the_wrong_type_is_refused(kind: int, payload: bytes) -> None:
    key = pair("general.alignment", kind, payload)
    refused(gguf([key], [ONE], bytes(96)), MalformedError, "alignment")


@pytest.mark.parametrize("kind", [4, 5, 31, 43, 2**32 - 1])
def test_81_an_unknown_tensor_type_is_refused(kind: int) -> None:
    refused(gguf([], [tensor("a", (32,), kind, 0)], bytes(64)), MalformedError, "unknown type")


def test_81_an_unknown_value_type_is_refused() -> None:
    refused(gguf([pair("k", 13, bytes(8))]), MalformedError, "unknown type")


def test_82_a_tensor_past_the_end_is_refused() -> None:
    refused(gguf([], [ONE], bytes(67)), TruncatedError, "ends at byte")


@pytest.mark.parametrize("offset", [1, 32, 64, 2**64 - 32])
def test_82_a_tensor_out_of_place_is_refused(offset: int) -> None:
    moved = tensor("b", (4,), 0, offset)
    refused(gguf([], [ONE, moved], bytes(256)), MalformedError, "begins at")


def test_82_trailing_bytes_are_refused() -> None:
    refused(gguf([], [ONE], bytes(96) + b"PK\x03\x04"), TrailingDataError, "4 bytes")


def test_83_a_product_of_dimensions_that_overflows_is_refused() -> None:
    huge = tensor("a", (2**32, 2**32, 2**32), 0, 0)
    refused(gguf([], [huge], bytes(64)), TruncatedError, "ends at byte")


@pytest.mark.parametrize("shape", [(0,), (2**63,), (32, 0), (2**41, 1)])
def test_83_an_impossible_dimension_is_refused(shape: tuple[int, ...]) -> None:
    refused(gguf([], [tensor("a", shape, 0, 0)], bytes(64)), MalformedError, "shape")


def test_83_rows_that_are_not_whole_blocks_are_refused() -> None:
    refused(gguf([], [tensor("a", (48, 2), 8, 0)], bytes(128)), MalformedError, "blocks")


@pytest.mark.parametrize("dimensions", [0, 5, 1000])
def test_83_a_number_of_dimensions_that_ggml_lacks_is_refused(dimensions: int) -> None:
    info = tensor("a", (1,) * dimensions, 0, 0)
    refused(gguf([], [info], bytes(64)), MalformedError, "dimensions")


def test_82_bytes_after_a_header_without_tensors_are_refused() -> None:
    parse(gguf([NAME]))
    refused(gguf([NAME], data=b"PK\x03\x04"), TrailingDataError, "4 bytes")


def test_text_that_is_not_utf8_is_refused() -> None:
    refused(gguf([pair("k", STRING, string(b"\xff"))]), MalformedError, "UTF-8")


def test_a_boolean_of_two_is_refused() -> None:
    refused(gguf([pair("k", 7, b"\2")]), MalformedError, "neither")


@pytest.mark.parametrize("size", range(0, len(GOOD), 7))
def test_a_file_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(IntegrityError):
        parse(GOOD[:size])


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=9), st.integers(0, 9))
def test_a_mutated_file_is_refused_or_parsed_within_bounds(
    at: int, inserted: bytes, removed: int
) -> None:
    data = GOOD[:at] + inserted + GOOD[at + removed :]
    try:
        header = parse(data)
    except IntegrityError:
        return
    assert all(t.offset + t.size <= len(data) for t in header.tensors)
