"""Split GGUF models that are not whole, or not one model (case 84 of the bad inputs)."""

from __future__ import annotations

import io
import struct

import pytest

from packager.errors import AirpackError, IntegrityError, MalformedError
from packager.format.ggml_types import BY_NAME
from packager.format.gguf_header import GgufHeader, parse_header
from packager.format.gguf_split import ShardName, check_parts
from packager.quantize.gguf_writer import Entry, TensorInfo, encode_header, text, uint32

F32 = BY_NAME["F32"]


def part(
    number: int,
    count: int,
    *tensors: str,
    total: int = 2,
    architecture: str | None = None,
    more: tuple[Entry, ...] = (),
) -> GgufHeader:
    entries = [
        Entry("split.no", 2, struct.pack("<H", number)),
        Entry("split.count", 2, struct.pack("<H", count)),
        Entry("split.tensors.count", 5, struct.pack("<i", total)),
        *([text("general.architecture", architecture)] if architecture else []),
    ]
    replaced = {entry.key for entry in more}
    entries = [entry for entry in entries if entry.key not in replaced] + list(more)
    infos = [TensorInfo(name, F32, (8,), 32 * index) for index, name in enumerate(tensors)]
    data = encode_header(entries, infos) + bytes(32 * len(infos))
    return parse_header(io.BytesIO(data), file_size=len(data), what="m.gguf")


FIRST = part(0, 2, "a", architecture="llama")


def refused(error: type[AirpackError], match: str, *parts: GgufHeader) -> None:
    with pytest.raises(error, match=match):
        check_parts((f"m-{place}.gguf", header) for place, header in enumerate(parts, start=1))


def test_a_whole_split_and_an_unsplit_model_are_taken() -> None:
    check_parts([("m-1.gguf", FIRST), ("m-2.gguf", part(1, 2, "b"))])
    check_parts([("m-1.gguf", part(0, 2, architecture="x")), ("m-2.gguf", part(1, 2, "a", "b"))])
    check_parts([("m.gguf", part(0, 1, "a", total=1))])


def test_a_model_in_one_file_need_not_say_that_it_is_whole() -> None:
    data = encode_header([], [TensorInfo("a", F32, (8,), 0)]) + bytes(32)
    check_parts([("m.gguf", parse_header(io.BytesIO(data), file_size=len(data), what="m.gguf"))])


def test_84_a_part_alone_is_refused() -> None:
    refused(IntegrityError, r"m-1\.gguf: .* one of 2 parts of a model; here .* of 1", FIRST)


def test_84_a_split_count_that_the_names_contradict_is_refused() -> None:
    refused(IntegrityError, r"m-2\.gguf: .*one of 3 parts", FIRST, part(1, 3, "b"))


def test_84_a_part_that_is_no_part_is_refused() -> None:
    whole = part(0, 0, "b")
    refused(IntegrityError, r"m-2\.gguf: .*one of 0 parts", FIRST, whole)


def test_84_a_first_part_that_does_not_say_that_it_is_first_is_refused() -> None:
    entries = [text("general.architecture", "llama"), Entry("split.count", 2, b"\2\0")]
    data = encode_header(entries, [TensorInfo("a", F32, (8,), 0)]) + bytes(32)
    first = parse_header(io.BytesIO(data), file_size=len(data), what="m.gguf")
    refused(MalformedError, r"m-1\.gguf: split\.no: not a sensible number", first, part(1, 2, "b"))


def test_84_the_same_part_twice_is_refused() -> None:
    refused(IntegrityError, "says that it is part 1 .* called part 2", FIRST, FIRST)


def test_84_parts_in_the_place_of_each_other_are_refused() -> None:
    refused(IntegrityError, "says that it is part 2 .* called part 1", part(1, 2, "b"), FIRST)


def test_84_a_tensor_in_two_parts_is_refused() -> None:
    refused(MalformedError, r"'a' is in m-1\.gguf too", FIRST, part(1, 2, "a"))


@pytest.mark.parametrize("total", [0, 1, 3])
def test_84_another_number_of_tensors_than_stated_is_refused(total: int) -> None:
    match = f"hold {total} tensors; they hold 2"
    refused(MalformedError, match, FIRST, part(1, 2, "b", total=total))


def test_84_a_part_of_another_architecture_is_refused() -> None:
    refused(
        IntegrityError, "architecture 'qwen3', and", FIRST, part(1, 2, "b", architecture="qwen3")
    )


def test_84_a_first_part_without_an_architecture_is_refused() -> None:
    refused(MalformedError, "architecture: missing", part(0, 2, "a"), part(1, 2, "b"))


@pytest.mark.parametrize(
    "entry", [Entry("split.no", 7, b"\1"), text("split.no", "1"), uint32("split.no", 2**31)]
)
def test_84_a_part_number_that_is_none_is_refused(entry: Entry) -> None:
    refused(MalformedError, "not a sensible number", FIRST, part(1, 2, "b", more=(entry,)))


def test_a_name_says_which_shards_there_are() -> None:
    name = ShardName.parse("Q4_K_M/model-Q4_K_M-00002-of-00003.gguf")

    assert name == ShardName("Q4_K_M/model-Q4_K_M", 2, 3)
    assert name.shards() == tuple(
        f"Q4_K_M/model-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    )
    for shard in name.shards():
        found = ShardName.parse(shard)
        assert found is not None
        assert found.shards() == name.shards()


@pytest.mark.parametrize(
    "name",
    ["model.gguf", "model-1-of-3.gguf", "-00001-of-00002.gguf", "m-00001-of-00002.gguf.part",
     "a/-00001-of-00002.gguf", "m-00001-of-00002.GGUF"],
)  # fmt: skip
def test_a_name_that_engines_do_not_take_for_a_shard_is_none(name: str) -> None:
    assert ShardName.parse(name) is None


@pytest.mark.parametrize("numbers", [(0, 2), (3, 2), (1, 0), (1, 99_999)])
def test_a_shard_whose_number_makes_no_sense_is_refused(numbers: tuple[int, int]) -> None:
    number, count = numbers
    name = ShardName.parse(f"m-{number:05d}-of-{count:05d}.gguf")
    assert name is not None
    with pytest.raises(MalformedError, match="number"):
        name.shards()
