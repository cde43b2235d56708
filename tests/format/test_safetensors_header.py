"""Hostile safetensors headers (cases 62 to 73 of the catalogue of bad inputs)."""

from __future__ import annotations

import json
import struct

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import safetensors_bytes

from packager.errors import (
    AirpackError,
    IntegrityError,
    MalformedError,
    TrailingDataError,
    TruncatedError,
    UnsafeContentError,
)
from packager.format.safetensors_header import (
    SafetensorsHeader,
    check_index,
    header_end,
    parse_header,
    parse_index,
)

ENTRY = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def parse(data: bytes) -> SafetensorsHeader:
    end = header_end(data[:16], file_size=len(data), what="m.safetensors")
    return parse_header(data[:end], file_size=len(data), what="m.safetensors")


def shard(header: object, data_size: int = 12) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_size)


def refused(data: bytes, error: type[AirpackError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        parse(data)
    assert "m.safetensors" in caught.value.message


def test_a_good_header_gives_its_tensors_in_the_order_of_their_data() -> None:
    data = safetensors_bytes({"b": ("F16", (2, 3), bytes(12)), "a": ("BF16", (4,), bytes(8))})

    header = parse(data)

    assert [(t.name, t.dtype, t.shape, t.size) for t in header.tensors] == [
        ("b", "F16", (2, 3), 12),
        ("a", "BF16", (4,), 8),
    ]
    assert header.tensors[1].end == len(data)
    assert header.metadata == (("format", "pt"),)


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**64 - 1])
def test_62_impossible_header_size_is_refused(size: int) -> None:
    refused(struct.pack("<Q", size) + b"{}", MalformedError, "header of")


def test_62_header_size_past_the_end_is_refused() -> None:
    refused(struct.pack("<Q", 1000) + b"{}", TruncatedError, "1000")


@pytest.mark.parametrize("size", [0, 3, 7])
def test_62_file_shorter_than_its_own_prefix_is_refused(size: int) -> None:
    refused(bytes(size), TruncatedError, "too short")


def test_63_header_over_100_mb_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="100 MB"):
        header_end(struct.pack("<Q", 100_000_001), file_size=2**40, what="m.safetensors")


def test_64_overlapping_ranges_are_refused() -> None:
    other = {"dtype": "F16", "shape": [2, 3], "data_offsets": [6, 18]}
    refused(shard({"a": ENTRY, "b": other}, 18), MalformedError, "overlap")


def test_64_two_tensors_on_the_same_bytes_are_refused() -> None:
    refused(shard({"a": ENTRY, "b": ENTRY}), MalformedError, "overlap")


def test_65_a_hole_between_tensors_is_refused() -> None:
    other = {"dtype": "F16", "shape": [1], "data_offsets": [14, 16]}
    refused(shard({"a": ENTRY, "b": other}, 16), MalformedError, "hole")


def test_65_a_hole_before_the_first_tensor_is_refused() -> None:
    entry = {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}
    refused(shard({"a": entry}, 4), MalformedError, "hole")


def test_66_trailing_bytes_are_refused() -> None:
    refused(shard({"a": ENTRY}) + b"PK\x03\x04", TrailingDataError, "4 bytes")


def test_66_missing_data_is_refused() -> None:
    refused(shard({"a": ENTRY}, 11), TruncatedError, "need")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [2, 4], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 12]},
        {"dtype": "F16", "shape": [2**33, 2**33], "data_offsets": [0, 12]},
        {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]},
    ],
)
def test_67_shape_and_type_that_do_not_give_the_range_are_refused(entry: object) -> None:
    refused(shard({"a": entry}), MalformedError, "do not hold")


@pytest.mark.parametrize("offsets", [[12, 0], [0], [0, 12, 24], [-1, 12], [0, 12.0], [0, True]])
def test_67_offsets_that_make_no_sense_are_refused(offsets: list[object]) -> None:
    refused(shard({"a": {**ENTRY, "data_offsets": offsets}}), MalformedError, "data_offsets")


def test_68_the_same_tensor_twice_is_refused() -> None:
    entry = json.dumps(ENTRY)
    refused(shard(f'{{"a":{entry},"a":{entry}}}'.encode()), MalformedError, "twice")


def test_69_a_leading_space_is_refused() -> None:
    refused(shard(b" " + json.dumps({"a": ENTRY}).encode()), MalformedError, "does not begin")


def test_69_trailing_spaces_that_align_the_data_are_taken() -> None:
    assert parse(shard(json.dumps({"a": ENTRY}).encode() + b"   ")).tensors[0].name == "a"


def test_a_file_without_tensors_and_a_tensor_without_numbers_are_taken() -> None:
    assert parse(shard({}, 0)) == SafetensorsHeader((), ())
    empty = {"a": {"dtype": "F16", "shape": [0, 3], "data_offsets": [0, 0]}, "b": ENTRY}
    assert [(t.name, t.size) for t in parse(shard(empty)).tensors] == [("a", 0), ("b", 12)]


def test_69_an_unknown_field_is_refused() -> None:
    refused(shard({"a": {**ENTRY, "stride": 1}}), MalformedError, "unknown field")


@pytest.mark.parametrize("metadata", [{"a": 1}, [], "x", {"a": None}])
def test_69_metadata_that_is_not_text_is_refused(metadata: object) -> None:
    refused(shard({"__metadata__": metadata, "a": ENTRY}), MalformedError, "__metadata__")


def test_70_an_empty_tensor_with_a_huge_dimension_is_refused() -> None:
    entry = {"dtype": "F16", "shape": [0, 2**62], "data_offsets": [0, 0]}
    refused(shard({"a": entry}, 0), MalformedError, "shape")


def test_70_a_thousand_dimensions_are_refused() -> None:
    entry = {"dtype": "U8", "shape": [1] * 1000, "data_offsets": [0, 1]}
    refused(shard({"a": entry}, 1), MalformedError, "dimensions")


@pytest.mark.parametrize("name", ["", "a\0b", "../a", "a/b", "a\\b", "a\x1b[2J", "\u202ea"])
def test_71_a_name_that_could_mislead_is_refused(name: str) -> None:
    refused(shard({name: ENTRY}), MalformedError, "name")


@pytest.mark.parametrize("dtype", ["F7", "", "f16", None, 16])
def test_73_an_unknown_type_is_refused(dtype: object) -> None:
    refused(shard({"a": {**ENTRY, "dtype": dtype}}), MalformedError, "dtype")


@pytest.mark.parametrize(
    "magic",
    [
        b"PK\x03\x04",
        b"\x80\x02\x8a\nl\xfc\x9cF",
        b"\x80\x04\x95",
        b"\x89HDF\r\n\x1a\n",
        b"7z\xbc\xaf'\x1c",
    ],
)
def test_85_and_86_another_format_under_this_name_is_unsafe_content(magic: bytes) -> None:
    refused(magic + bytes(range(64)), UnsafeContentError, "but it is")


def test_a_header_whose_size_looks_like_a_pickle_is_still_a_header() -> None:
    text = json.dumps({"a": ENTRY}).encode().ljust(0x280)

    assert struct.pack("<Q", len(text))[:2] == b"\x80\x02"
    assert parse(struct.pack("<Q", len(text)) + text + bytes(12)).tensors[0].size == 12


def test_a_git_lfs_pointer_is_named_as_such() -> None:
    refused(b"version https://git-lfs.github.com/spec/v1\n", UnsafeContentError, "LFS pointer")


@pytest.mark.parametrize(
    "text", [b"{" * 100_000, b'{"a":' * 50_000, b"{\xff}", b'{"a":NaN}', b"{}x"]
)
def test_json_that_is_broken_or_bottomless_is_refused(text: bytes) -> None:
    refused(shard(text, 0), MalformedError, "m.safetensors")


GOOD = safetensors_bytes({"a": ("F16", (2, 3), bytes(12)), "b.c": ("I64", (2,), bytes(16))})


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_a_mutated_file_is_refused_or_is_what_the_reference_reader_takes(
    at: int, inserted: bytes, removed: int
) -> None:
    data = GOOD[:at] + inserted + GOOD[at + removed :]
    try:
        header = parse(data)
    except AirpackError:
        return
    theirs = dict(safetensors.deserialize(data))
    assert {t.name: list(t.shape) for t in header.tensors} == {
        name: entry["shape"] for name, entry in theirs.items()
    }


@given(st.binary(max_size=200))
def test_random_bytes_never_crash_the_parser(data: bytes) -> None:
    with pytest.raises((IntegrityError, UnsafeContentError)):
        parse(data)


def index(weight_map: object) -> bytes:
    return json.dumps({"metadata": {"total_size": 28}, "weight_map": weight_map}).encode()


@pytest.mark.parametrize("path", ["../m.safetensors", "/m.safetensors", "C:m", "a\\b", ""])
def test_72_an_index_that_points_outside_is_refused(path: str) -> None:
    with pytest.raises((UnsafeContentError, MalformedError)):
        parse_index(index({"a": path}), what="index")


@pytest.mark.parametrize("weights", [None, [], {}, {"a": 1}, {"": "m"}])
def test_72_an_index_without_a_map_of_weights_is_refused(weights: object) -> None:
    with pytest.raises(MalformedError, match="index"):
        parse_index(index(weights), what="index")


def test_72_an_index_naming_a_shard_that_is_not_there_is_refused() -> None:
    parsed = parse_index(index({"a": "m1", "b.c": "m2"}), what="index")

    with pytest.raises(MalformedError, match="m2 is not there"):
        check_index(parsed, {"m1": parse(GOOD)}, what="index")


def test_72_an_index_naming_a_tensor_that_its_shard_lacks_is_refused() -> None:
    parsed = parse_index(index({"a": "m1", "b.c": "m1", "z": "m1"}), what="index")

    with pytest.raises(MalformedError, match="m1 lacks the tensor 'z'"):
        check_index(parsed, {"m1": parse(GOOD)}, what="index")


def test_72_a_tensor_that_the_index_leaves_out_is_refused() -> None:
    parsed = parse_index(index({"a": "m1"}), what="index")

    with pytest.raises(MalformedError, match=r"b\.c"):
        check_index(parsed, {"m1": parse(GOOD)}, what="index")


def test_72_a_tensor_in_two_shards_is_refused() -> None:
    parsed = parse_index(index({"a": "m1", "b.c": "m2"}), what="index")

    with pytest.raises(MalformedError, match="too"):
        check_index(parsed, {"m1": parse(GOOD), "m2": parse(GOOD)}, what="index")


def test_an_index_that_matches_its_shards_is_taken() -> None:
    one = parse(safetensors_bytes({"a": ("F16", (1,), bytes(2))}))
    two = parse(safetensors_bytes({"b": ("F16", (1,), bytes(2))}))
    parsed = parse_index(index({"a": "m1", "b": "m2"}), what="index")

    check_index(parsed, {"m1": one, "m2": two}, what="index")

    assert parsed.shards == ("m1", "m2")
