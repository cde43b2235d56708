"""The index: whatever does not fit together is refused, and the message says where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.bundle import (
    MAX_INDEX_SIZE,
    MAX_VARIANTS,
    Bundle,
    Origin,
    PayloadFile,
    encode_bundle,
    parse_bundle,
)
from packager.format.digest import Digest
from packager.format.tar import plan_tar
from packager.format.target import Target
from packager.format.variant import Variant
from packager.format.volumes import (
    MAX_CHUNK_SIZE,
    MAX_PAYLOAD_SIZE,
    MIN_CHUNK_SIZE,
    Payload,
    Volume,
    volume_name,
)

PLACE = "models/tiny/original"
ZERO = Digest.of(b"")


def index_of(files: list[tuple[str, int]], *, volume_chunks: int = 2) -> Bundle:
    """An index of ``files``, with volumes of ``volume_chunks`` chunks; the digests are made up."""
    layout = plan_tar(files)
    volume_size = volume_chunks * MIN_CHUNK_SIZE
    chunks = -(-layout.size // MIN_CHUNK_SIZE)
    return Bundle(
        name="tiny",
        version="1.0.0",
        sequence=1,
        created="2026-11-24T00:00:00Z",
        expires="2027-12-31",
        signers=1,
        airpack="0.1.0",
        engine="xllamacpp 1",
        origin=Origin("hub", "org/tiny", "0" * 40, "apache-2.0"),
        lock=ZERO,
        payload=Payload(layout.size, MIN_CHUNK_SIZE, (ZERO,) * chunks),
        volumes=tuple(
            Volume(volume_name(number), min(volume_size, layout.size - offset), offset)
            for number, offset in enumerate(range(0, layout.size, volume_size), start=1)
        ),
        parity=(),
        files=tuple(PayloadFile(e.path, e.size, e.offset, ZERO) for e in layout.entries),
        variants=(Variant("original", "gguf", "Q4_K_M", PLACE, "model.gguf", None),),
        targets=(Target("linux_x86_64", ("3.11",), "2.28"),),
    )


INDEX = index_of([(f"{PLACE}/model.gguf", 200_000), (f"{PLACE}/config.json", 3)])
RAW = encode_bundle(INDEX)


def refused(data: bytes) -> str:
    """What is said of ``data``: one printable line that names the file; exit code 10."""
    with pytest.raises(MalformedError) as caught:
        parse_bundle(data)
    assert caught.value.exit_code == 10
    message = caught.value.message
    assert message.startswith("bundle.json: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message


def test_a_model_of_which_nobody_states_a_licence_has_none_when_read() -> None:
    index = replace(INDEX, origin=replace(INDEX.origin, licence=None))
    assert parse_bundle(encode_bundle(index)) == index


def changed(change: Callable[[Any], object]) -> bytes:
    """The index after ``change``, which gets it as a document."""
    document = canonical.decode(RAW, what="", max_size=MAX_INDEX_SIZE)
    change(document)
    return canonical.encode(document)


def with_(where: str, value: object) -> bytes:
    """The index with ``value`` at ``where``, as in ``files.0.size``."""

    def change(document: Any) -> None:
        *parents, last = [int(p) if p.isdigit() else p for p in where.split(".")]
        for parent in parents:
            document = document[parent]
        document[last] = value

    return changed(change)


@given(
    st.lists(
        st.tuples(st.from_regex(r"w[a-z]{1,109}", fullmatch=True), st.integers(0, 300_000)),
        max_size=6,
        unique_by=lambda file: file[0],
    ),
    st.integers(1, 4),
)
def test_an_index_is_read_as_it_was_written(files: list[tuple[str, int]], volumes: int) -> None:
    named = [(f"{PLACE}/model.gguf", 1), *((f"{PLACE}/{name}.x", size) for name, size in files)]
    index = index_of(named, volume_chunks=volumes)
    assert parse_bundle(encode_bundle(index)) == index


@given(data=st.data())
def test_a_changed_byte_is_refused_or_says_something_else(data: st.DataObject) -> None:
    damaged = bytearray(RAW)
    damaged[data.draw(st.integers(0, len(RAW) - 1))] = data.draw(st.integers(0, 255))
    try:
        index = parse_bundle(bytes(damaged))
    except MalformedError:
        return
    assert encode_bundle(index) == bytes(damaged)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(RAW[:-1] + b',"version":"2"}', id="21-duplicate-key"),
        pytest.param(b'{"airpack":"0",' + RAW[1:], id="21-duplicate-key-in-order"),
        pytest.param(b"\xef\xbb\xbf" + RAW, id="22-byte-order-mark"),
        pytest.param(RAW.decode().encode("utf-16"), id="22-utf-16"),
        pytest.param(b"[" * 100_000, id="24-deep-lists"),
        pytest.param(b'{"a":' * 100_000, id="24-deep-mappings"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="24-deep-and-closed"),
        pytest.param(RAW.replace(b'"tiny"', b'"t\xff"'), id="26-not-utf-8"),
        pytest.param(RAW.replace(b'"tiny"', b'"\xed\xa0\x80"'), id="26-surrogate-bytes"),
        pytest.param(RAW.replace(b'"tiny"', b'"\\ud800"'), id="26-lone-surrogate"),
        pytest.param(RAW + b"\n", id="a-line-feed-more"),
        pytest.param(RAW.replace(b":", b": ", 1), id="white-space"),
        pytest.param(b"[]", id="not-a-mapping"),
        pytest.param(b"", id="empty"),
        pytest.param(RAW[:-1], id="truncated"),
    ],
)
def test_21_22_24_26_bytes_that_are_not_canonical_json_are_refused(data: bytes) -> None:
    refused(data)


def test_25_an_index_of_any_size_is_refused_without_being_taken_apart() -> None:
    assert "more than the limit" in refused(bytes(MAX_INDEX_SIZE + 1))
    assert "not valid JSON" in refused(b" " * (100 << 20))
    assert "more than" in refused(b"[" * (100 << 20))


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e999", "1.0", "1e3", "-1", "-0", "00", "true", "null",
     '"1"', "[]", "9007199254740992", "9" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("field", ["size", "offset"])
def test_23_only_a_whole_number_in_range_is_a_size(number: str, field: str) -> None:
    entry = INDEX.files[0]
    good = f'"{field}":{getattr(entry, field)}'.encode()
    assert RAW.count(good) == 1
    refused(RAW.replace(good, f'"{field}":{number}'.encode()))


def test_27_another_major_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(MalformedError, match="format version 2; this airpack reads 1") as caught:
        parse_bundle(with_("format_version", 2))
    assert caught.value.hint is not None
    assert "setup.sh" in caught.value.hint


def test_27_the_version_is_looked_at_before_fields_that_only_a_later_one_has() -> None:
    later = changed(lambda d: d.update(format_version=2, novelty=1))
    assert "format version 2" in refused(later)


@pytest.mark.parametrize("features", [["delta"], ["\x1b[2J"], ["x" * 5000], ["a", "b"] * 50])
def test_28_a_feature_that_is_required_and_unknown_is_refused(features: list[str]) -> None:
    assert "this airpack does not have" in refused(with_("features", features))


@pytest.mark.parametrize("where", ["lock", "files.0.digest", "payload.chunks.1"])
@pytest.mark.parametrize(
    "digest",
    ["md5:" + "0" * 32, "0" * 40, "0" * 63, "A" * 64, "sha256:" + "0" * 64, "0" * 64 + "\n"],
)
def test_29_a_digest_that_is_not_sha256_is_refused_with_its_place(where: str, digest: str) -> None:
    message = refused(with_(where, digest))
    path = where.replace(".0", "[0]").replace(".1", "[1]")
    assert f"{path}: not a sha256 digest" in message


@pytest.mark.parametrize(
    ("path", "fact"),
    [
        (f"{PLACE}/model.gguf", "the same on some hosts"),
        (f"{PLACE}/MODEL.gguf", "the same on some hosts"),
        (f"{PLACE}/model.gguf/x", "for a file and for a directory"),
        (PLACE, "for a file and for a directory"),
        ("models/tiny/../x", "has the component"),
        ("/etc/passwd", "is absolute"),
        ("models/\x1b[2J", "control"),
    ],
)
def test_30_34_a_path_that_stands_twice_or_leads_elsewhere_is_refused(path: str, fact: str) -> None:
    assert fact in refused(with_("files.1.path", path))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("files.0.offset", INDEX.files[0].offset - 1),
        ("files.1.offset", INDEX.files[0].offset),
        ("files.1.offset", INDEX.files[1].offset + 512),
        ("files.1.offset", INDEX.payload.size),
        ("files.0.size", INDEX.files[0].size + 512),
        ("files.1.size", INDEX.payload.size),
        ("files.1.size", canonical.MAX_INTEGER),
        ("files", []),
    ],
)
def test_31_files_that_overlap_leave_gaps_or_run_past_the_end_are_refused(
    where: str, value: object
) -> None:
    message = refused(with_(where, value))
    assert "not where the payload has it" in message or "do not add up" in message


def test_31_files_out_of_their_order_are_refused() -> None:
    assert "not where" in refused(changed(lambda d: d["files"].reverse()))


@pytest.mark.parametrize(
    ("where", "value", "fact"),
    [
        ("payload.chunks", [], "0 chunks do not make"),
        ("payload.chunks", [ZERO.hex] * 5, "5 chunks do not make"),
        ("payload.size", INDEX.payload.size + MIN_CHUNK_SIZE, "4 chunks do not make"),
        ("payload.size", 0, "not between 1 and"),
        ("payload.size", MAX_PAYLOAD_SIZE + 1, "not between 1 and"),
        ("payload.chunk_size", 0, "not between"),
        ("payload.chunk_size", MIN_CHUNK_SIZE // 2, "not between"),
        ("payload.chunk_size", MAX_CHUNK_SIZE * 2, "not between"),
        ("payload.chunk_size", MIN_CHUNK_SIZE + 1, "not a power of two"),
        ("payload.chunk_size", MIN_CHUNK_SIZE * 2, "4 chunks do not make"),
    ],
)
def test_32_chunks_that_do_not_fit_the_payload_are_refused(
    where: str, value: object, fact: str
) -> None:
    assert fact in refused(with_(where, value))


SIZES = [volume.size for volume in INDEX.volumes]


@pytest.mark.parametrize(
    ("sizes", "fact"),
    [
        ([], "do not add up"),
        (SIZES[:1], "do not add up"),
        ([*SIZES, 1], "do not add up"),
        ([sum(SIZES) - 1, 1], "does not hold whole chunks"),
        ([MIN_CHUNK_SIZE, 2 * MIN_CHUNK_SIZE, sum(SIZES) - 3 * MIN_CHUNK_SIZE], "whole chunks"),
        ([MIN_CHUNK_SIZE, sum(SIZES) - MIN_CHUNK_SIZE], "larger than the first"),
        ([*SIZES, 0], "not between 1 and"),
    ],
)
def test_33_volumes_that_do_not_fit_the_payload_are_refused(sizes: list[int], fact: str) -> None:
    volumes = [{"name": volume_name(n), "size": s} for n, s in enumerate(sizes, start=1)]
    assert fact in refused(with_("volumes", volumes))


@pytest.mark.parametrize(
    "name", ["payload.2", "payload.00002", "../payload.00001", "PAYLOAD.00001", "payload.00001\n"]
)
def test_33_a_volume_of_another_name_or_number_is_refused(name: str) -> None:
    refused(with_("volumes.0.name", name))


@pytest.mark.parametrize("where", ["created", "expires"])
@pytest.mark.parametrize("moment", ["soon", "2026-1-4", "2026-02-30", "2026-11-24T25:00:00Z",
    "2026-11-24T00:00:00+01:00", "٢٠٢٦-11-24"])  # fmt: skip
def test_a_moment_that_no_host_could_compare_is_refused_at_the_build(
    where: str, moment: str
) -> None:
    with pytest.raises(MalformedError, match=rf"bundle\.json: {where}: .* is not a date"):
        encode_bundle(replace(INDEX, **{where: moment}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "where", ["airpack", "engine", "origin.repository", "origin.licence", "variants.0.type",
              "variants.0.format", "targets.0.platform", "targets.0.python.0"]
)  # fmt: skip
@pytest.mark.parametrize("text", ["", "a\x1b[2Jb", "a\nb", "\u202eexe.", "x" * 2000])
def test_39_text_that_would_deceive_a_terminal_is_refused(where: str, text: str) -> None:
    refused(with_(where, text))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d.update(extra=1), "extra: unknown field"),
        (lambda d: d.update({"k" * 5000: 1}), "unknown field"),
        (lambda d: d["files"][0].update(mode=511), "files[0].mode: unknown field"),
        (lambda d: d.pop("volumes"), "volumes: missing"),
        (lambda d: d.update(format="zip"), "not airpack-bundle"),
        (lambda d: d.update(name="../up"), "is not a plain name"),
        (lambda d: d.update(version="con"), "is not a plain name"),
        (lambda d: d.update(sequence=0), "sequence: 0 is not between"),
        (lambda d: d.update(signers=0), "signers: 0 is not between"),
        (lambda d: d.update(variants=[]), "no variants"),
        (lambda d: d.update(variants=d["variants"] * 2), "two of one name"),
        (lambda d: d.update(variants=d["variants"] * (MAX_VARIANTS + 1)), "more than 64 entries"),
        (lambda d: d["variants"][0].update(directory="models"), "not in its directory"),
        (lambda d: d["variants"][0].update(model="../x"), "is not in the payload"),
        (
            lambda d: d["variants"].append(
                {**d["variants"][0], "name": "q8_0", "directory": "models/tiny/q8_0", "model": None}
            ),
            "variant q8_0 has no files",
        ),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(
    change: Callable[[Any], object], fact: str
) -> None:
    assert fact in refused(changed(change))


def test_files_are_found_by_the_bytes_they_touch() -> None:
    model, config = INDEX.files
    assert list(INDEX.files_touching(model.offset, model.offset + 1)) == [model]
    assert list(INDEX.files_touching(model.end, config.offset)) == []
    assert list(INDEX.files_touching(0, INDEX.payload.size)) == [model, config]
    assert INDEX.payload.chunk_range(3) == (3 * MIN_CHUNK_SIZE, INDEX.payload.size % MIN_CHUNK_SIZE)
