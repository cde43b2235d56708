"""Repair tickets as people write them down: taken as they come, and never misread."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError, ParseError, UsageError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.patch import Patch, PatchChunk, PatchFile, encode_patch, parse_patch
from packager.format.ticket import (
    MAX_TICKET_CHUNKS,
    MAX_TICKET_SIZE,
    Ticket,
    encode_ticket,
    format_ranges,
    parse_ticket,
)

TICKET = Ticket(
    "tiny-kjv-1.0.0", Digest.of(b"sums").hex[:32], (17, *range(20, 26), 311), "1b4f0e98"
)

hex_digits = st.text("0123456789abcdef", min_size=8, max_size=8)
ascending = st.sets(st.integers(1, 4000), max_size=200).map(lambda found: tuple(sorted(found)))
tickets = st.builds(
    Ticket,
    title=st.from_regex(r"[a-z0-9][a-z0-9._]{0,20}-[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    bundle=st.text("0123456789abcdef", min_size=32, max_size=32),
    chunks=ascending,
    digests=hex_digits,
    files=ascending,
).filter(lambda ticket: ticket.chunks or ticket.files)


def read(text: str) -> Ticket:
    return parse_ticket(text.encode("utf-8"), "t.txt")


def with_check(*lines: str) -> str:
    """A ticket of ``lines``, whose check fits them: only something else can be wrong."""
    body = "".join(f"{line}\n" for line in lines)
    return f"{body}check {Digest.of(body.encode('ascii')).hex[:8]}\n"


def retyped(text: str, chance: random.Random) -> str:
    """``text`` as somebody might type it in: other case, other spaces, other lines."""
    words = [word.upper() if chance.random() < 0.3 else word for word in text.split()]
    spaced = [chance.choice([w, w.replace("-", " - ")]) if w[0].isdigit() else w for w in words]
    title = next(n for n, word in enumerate(words) if word.lower() == "bundle") + 1
    spaced[title] = words[title]
    ends = ["\n", "\r\n", "\r", " ", "\t", "  ", "\n\n"]
    return "".join(f"{word}{chance.choice(ends)}" for word in spaced)


@given(tickets)
def test_a_ticket_is_read_as_it_was_written(ticket: Ticket) -> None:
    text = encode_ticket(ticket)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 110
    assert read(text) == ticket


@given(tickets, st.randoms(use_true_random=False))
def test_case_spaces_and_line_ends_do_not_matter(ticket: Ticket, chance: random.Random) -> None:
    assert read(retyped(encode_ticket(ticket), chance)) == ticket


@given(tickets, st.data())
def test_one_misheard_digit_is_noticed(ticket: Ticket, data: st.DataObject) -> None:
    text = encode_ticket(ticket)
    begin = text.index("bundle") + len(f"bundle {ticket.title}")
    places = [begin + m.start() for m in re.finditer(r"[0-9]", text[begin:])]
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([d for d in "0123456789" if d != text[place]]))
    with pytest.raises(ParseError, match=r"t\.txt: line \d+: "):
        read(text[:place] + other + text[place + 1 :])


def test_the_lines_are_short_enough_to_read_out() -> None:
    lines = encode_ticket(TICKET).splitlines()
    assert lines[:3] == [
        "airpack repair ticket 1",
        "bundle tiny-kjv-1.0.0 " + format_groups(TICKET.bundle),
        "chunks 17 20-25 311",
    ]
    assert lines[3:] == ["digests 1b4f 0e98", f"check {format_groups(TICKET.check)}"]


def test_small_files_are_asked_for_by_their_lines() -> None:
    ticket = replace(TICKET, files=(3, 4, 9))
    assert encode_ticket(ticket).splitlines()[2:4] == ["chunks 17 20-25 311", "files 3-4 9"]
    alone = replace(ticket, chunks=())
    assert encode_ticket(alone).splitlines()[2] == "files 3-4 9"
    assert read(encode_ticket(alone)) == alone


def format_groups(digits: str) -> str:
    return " ".join(re.findall("....", digits))


def with_numbers(chunks: str, *, said: str | None = None) -> str:
    """A ticket whose check is over ``chunks``, and that says ``said`` in their place."""
    whole = with_check(HEAD, BUNDLE, f"chunks {chunks}", DIGESTS)
    return whole.replace(f"chunks {chunks}", f"chunks {said or chunks}")


@pytest.mark.parametrize("said", ["17-20 22", "17 - 20 22", "17 -20 22", "17- 20 22", "17-\n20 22"])
def test_a_range_may_have_spaces_round_its_hyphen(said: str) -> None:
    assert read(with_numbers("17-20 22", said=said)).chunks == (17, 18, 19, 20, 22)


def test_a_ticket_asks_for_as_many_chunks_as_a_patch_may_hold_and_no_more() -> None:
    for ranges in (f"0-{MAX_TICKET_CHUNKS - 1}", f"0-4 9 20-{MAX_TICKET_CHUNKS + 13}"):
        assert len(read(with_numbers(ranges)).chunks) == MAX_TICKET_CHUNKS
    for ranges in (f"0-{MAX_TICKET_CHUNKS}", f"0-4 9 20-{MAX_TICKET_CHUNKS + 14}"):
        with pytest.raises(ParseError, match="line 3: asks for more than 65536 chunks"):
            read(with_numbers(ranges))


def test_the_check_fails_with_advice() -> None:
    with pytest.raises(ParseError, match=r"t\.txt: line 5: the check does not fit") as caught:
        read(encode_ticket(TICKET).replace("311", "317"))
    assert "read the ticket out again" in (caught.value.hint or "")


def test_a_byte_order_mark_that_an_editor_left_is_passed_over() -> None:
    assert parse_ticket(b"\xef\xbb\xbf" + encode_ticket(TICKET).encode(), "t") == TICKET


HEAD = "airpack repair ticket 1"
BUNDLE = f"bundle tiny-1 {'0' * 32}"
DIGESTS = "digests 00000000"


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "line 1: expected 'airpack repair ticket'"),
        ("\n\nsomething else\n", "line 3: expected 'airpack repair ticket'"),
        ("airpack repair ticket", "line 1: ticket version ''"),
        ("airpack repair ticket 2\nbundle", "line 1: ticket version '2'; this airpack reads 1"),
        (f"{HEAD}\n", "line 1: ends before 'bundle'"),
        (f"{HEAD}\n{BUNDLE}\nchunks 1\n", "line 3: ends before 'digests'"),
        (f"{HEAD}\nchunks 1\n", "line 2: 'chunks' stands twice, or out of order"),
        (f"{HEAD}\n{BUNDLE}\n{BUNDLE}\n", "line 3: 'bundle' stands twice, or out of order"),
        (f"{HEAD} and\n{BUNDLE}", "line 1: 'and' where 'bundle' should be"),
        (with_check(HEAD, "bundle", "chunks 1", DIGESTS), "line 2: '' is not the name"),
        (with_check(HEAD, "bundle ../x 00", "chunks 1", DIGESTS), "line 2: '../x' is not the name"),
        (with_check(HEAD, "bundle x-1 00g0", "chunks 1", DIGESTS), "line 2: '00g0' is not 32"),
        (with_check(HEAD, BUNDLE, "chunks", DIGESTS), "line 3: names no chunk"),
        (with_check(HEAD, BUNDLE, "chunks 1 x", DIGESTS), "line 3: 'x' is not a chunk"),
        (with_check(HEAD, BUNDLE, "chunks 1,2", DIGESTS), "line 3: '1,2' is not a chunk"),
        (with_check(HEAD, BUNDLE, "chunks -1", DIGESTS), "line 3: '-1' is not a chunk"),
        (with_check(HEAD, BUNDLE, "chunks 1-2-3", DIGESTS), "line 3: '1-2-3' is not a chunk"),
        (with_check(HEAD, BUNDLE, "chunks 3 2", DIGESTS), "line 3: 2 is out of order"),
        (with_check(HEAD, BUNDLE, "chunks 3 3", DIGESTS), "line 3: 3 is out of order"),
        (with_check(HEAD, BUNDLE, "chunks 5-3", DIGESTS), "line 3: 5-3 is out of order"),
        (with_check(HEAD, BUNDLE, "chunks 0-999999999", DIGESTS), "line 3: asks for more than"),
        (with_check(HEAD, BUNDLE, "chunks 1", "digests 00"), "line 4: '00' is not 8 digits"),
        (with_check(HEAD, BUNDLE, DIGESTS), "line 4: asks for nothing"),
        (with_check(HEAD, BUNDLE, "files 0", DIGESTS), "line 3: 0 is out of order"),
        (with_check(HEAD, BUNDLE, "files x", DIGESTS), "line 3: 'x' is not a file"),
        (with_check(HEAD, BUNDLE, "files", DIGESTS), "line 3: names no file"),
        (f"{HEAD}\n{BUNDLE}\nfiles 1\nchunks 1\n", "line 4: 'chunks' stands twice, or out of"),
        (f"{HEAD}\nbundle tiny\u20131 00\n", "line 2: not plain ASCII: byte 0xe2"),
    ],
)
def test_what_is_no_ticket_is_refused_with_its_line(text: str, fact: str) -> None:
    with pytest.raises(ParseError, match=re.escape(f"t.txt: {fact}")) as caught:
        read(text)
    assert caught.value.exit_code == UsageError.exit_code


def test_an_endless_ticket_is_refused() -> None:
    with pytest.raises(ParseError, match="too large for a ticket"):
        parse_ticket(b" " * (MAX_TICKET_SIZE + 1), "t.txt")


def test_ranges_are_those_that_people_read_out() -> None:
    assert format_ranges((0, 1, 2, 4, 6, 7)) == "0-2 4 6-7"


def test_a_patch_document_is_read_as_it_was_written() -> None:
    chunks = tuple(
        PatchChunk(number, size, offset, Digest.of(b"a"))
        for number, size, offset in ((3, 10, 0), (4, 5, 10), (9, 2, 15))
    )
    files = tuple(
        PatchFile(name, size, offset, Digest.of(b"c"))
        for name, size, offset in (("a.txt", 0, 17), ("b", 3, 17), ("c", 2, 20))
    )
    for patch in (
        Patch("tiny-1", Digest.of(b"sums"), chunks),
        Patch("tiny-1", Digest.of(b"sums"), chunks, files),
        Patch("tiny-1", Digest.of(b"sums"), (), (PatchFile("b", 5, 0, Digest.of(b"c")),)),
    ):
        assert parse_patch(encode_patch(patch)) == patch
    assert Patch("tiny-1", Digest.of(b"sums"), chunks, files).size == 22


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format": "airpack-bundle"}, "format: not airpack-patch"),
        ({"format_version": 2}, "format version 2"),
        ({"more": 1}, "more: unknown field"),
        ({"title": "a\x1b[2J"}, "title: .* is not one plain line"),
        ({"bundle": "00"}, "bundle: not a sha256"),
        ({"chunks": []}, "chunks: are none, and no files either"),
        ({"chunks": [None] * (MAX_TICKET_CHUNKS + 1)}, "chunks: more than 65536 entries"),
        ({"chunks": [{"number": 1, "size": 0, "digest": "0" * 64}]}, r"chunks\[0\]\.size"),
        ({"chunks": [{"number": 1, "size": 1 << 23, "digest": "0" * 64}]}, r"chunks\[0\]\.size"),
        ({"chunks": [{"number": 1, "size": 1, "digest": "0" * 64}] * 2}, r"chunks\[1\]\.number"),
        ({"files": [None] * 4097}, "files: more than 4096 entries"),
        ({"files": [{"name": "\x1b", "size": 1, "digest": "0" * 64}]}, "is not one plain line"),
        ({"files": [{"name": "x", "size": 1 << 32, "digest": "0" * 64}]}, r"files\[0\]\.size"),
        ({"files": [{"name": "x", "size": 1, "digest": "0" * 64}] * 2}, r"files\[1\]\.name"),
    ],
)
def test_a_patch_document_that_does_not_fit_is_refused(
    change: dict[str, canonical.Json], fact: str
) -> None:
    patch = Patch("tiny-1", Digest.of(b"sums"), (PatchChunk(3, 10, 0, Digest.of(b"a")),))
    document = canonical.decode(encode_patch(patch), what="p", max_size=1 << 20)
    assert isinstance(document, dict)
    with pytest.raises(MalformedError, match=f"patch.json: .*{fact}|patch.json: {fact}"):
        parse_patch(canonical.encode(document | change))
