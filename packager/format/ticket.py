"""The repair ticket: the few lines that ask for what the media cannot make good by themselves.

Plain ASCII, to be carried back, or read out over a telephone and typed in again:

    airpack repair ticket 1
    bundle tiny-kjv-1.0.0 9f86 d081 884c 7d65 9a2f eaa0 c55a d015
    chunks 17 20-25 311
    files 3
    digests 1b4f 0e98
    check 6025 1a6c

``bundle`` has the bundle's name and version and the first 32 hexadecimal digits of the digest of
its sums; ``chunks`` the numbers, as ranges; ``files`` those of small files, as lines of the sums,
counted from 1: names are too long to read out. Either may be left out, not both. ``digests`` has
the first 8 digits of the sha256 over the digests of these chunks and then of these files, one after
the other in hexadecimal; ``check`` the first 8 of the sha256 over the lines above it, each with one
space between its words, no space within a digest, and a line feed behind it. Reading takes either
case, any spaces and any line ends, since a person typed it; and nothing else.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from packager.errors import ParseError, UsageError
from packager.format.bundle import Bundle
from packager.format.digest import Digest

MAX_TICKET_SIZE = 1 << 20
MAX_TICKET_CHUNKS = 1 << 16  # of 64 KiB these are the 4 GiB that FAT32 takes in one file

_HEADER = ("airpack", "repair", "ticket")
_VERSION = "1"
_KEYWORDS = ("bundle", "chunks", "files", "digests", "check")
_OPTIONAL = {"chunks", "files"}
_BUNDLE_DIGITS = 32
_SHORT_DIGITS = 8
_WIDTH = 72
_TITLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}\Z")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Ticket:
    """What is asked for of one bundle: chunks by number, files by line of the sums, ascending.

    ``bundle`` are 32 digits of the digest of its sums, ``digests`` 8 of that over those wanted.
    """

    title: str
    bundle: str
    chunks: tuple[int, ...]
    digests: str
    files: tuple[int, ...] = ()

    @cached_property
    def check(self) -> str:
        """The 8 digits by which a misheard one is noticed."""
        lines = [*_lines(self), ""]
        return Digest.of("\n".join(lines).encode("ascii")).hex[:_SHORT_DIGITS]


def make_ticket(
    bundle: Bundle,
    digest: Digest,
    chunks: Sequence[int],
    files: Mapping[int, Digest] | None = None,
) -> Ticket:
    """Ask for ``chunks``, in ascending order, of the bundle whose sums have ``digest``.

    ``files`` are those wanted beside, by the line of the sums that lists them. Raises
    ``UsageError`` for more than one patch can hold.
    """
    if len(chunks) > MAX_TICKET_CHUNKS:
        raise UsageError(
            f"{bundle.title}: {len(chunks)} chunks are lost; a ticket asks for at most "
            f"{MAX_TICKET_CHUNKS}",
            hint="copy the damaged volumes again from where the bundle was built",
        )
    lines = dict(sorted((files or {}).items()))
    short = digest_of_wanted(bundle, chunks, lines.values())
    return Ticket(bundle.title, digest.hex[:_BUNDLE_DIGITS], tuple(chunks), short, tuple(lines))


def digest_of_wanted(bundle: Bundle, chunks: Iterable[int], files: Iterable[Digest] = ()) -> str:
    """The 8 digits that stand for ``chunks``, all of which ``bundle`` has, and ``files``."""
    digests = (*(bundle.chunk_digests[chunk] for chunk in chunks), *files)
    return Digest.of("".join(map(str, digests)).encode("ascii")).hex[:_SHORT_DIGITS]


def encode_ticket(ticket: Ticket) -> str:
    """The lines of ``ticket``, each ending in a line feed; reading takes them back."""
    header, bundle, *wanted, digests = _lines(ticket)
    lines = [
        header,
        f"{bundle.removesuffix(ticket.bundle)}{_grouped(ticket.bundle)}",
        *(part for line in wanted for part in _wrapped(line)),
        f"{digests.removesuffix(ticket.digests)}{_grouped(ticket.digests)}",
        f"check {_grouped(ticket.check)}",
    ]
    return "".join(f"{line}\n" for line in lines)


def format_ranges(numbers: Iterable[int]) -> str:
    """Ascending ``numbers`` as people read them out: ``17 20-25 311``."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    spans = ([number for _, number in run] for _, run in runs)
    return " ".join(f"{s[0]}-{s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans)


def _lines(ticket: Ticket) -> tuple[str, ...]:
    """The lines that the check is over, their digests in one piece."""
    return (
        " ".join((*_HEADER, _VERSION)),
        f"bundle {ticket.title} {ticket.bundle}",
        *([f"chunks {format_ranges(ticket.chunks)}"] if ticket.chunks else ()),
        *([f"files {format_ranges(ticket.files)}"] if ticket.files else ()),
        f"digests {ticket.digests}",
    )


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, break_on_hyphens=False, subsequent_indent="  ")


def _grouped(digits: str) -> str:
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


@dataclass(frozen=True)
class _Word:
    """A word and the number of the line it stands in, from 1."""

    text: str
    line: int


def parse_ticket(data: bytes, what: str) -> Ticket:
    """Read a ticket, called ``what`` in errors; raises ``ParseError`` with the line at fault."""
    words = list(_words(data, what))
    _check_header(words[:4], what)
    sections = _sections(words[4:], what)
    ticket = Ticket(
        title=_title(sections["bundle"], what),
        bundle=_digits(sections["bundle"][1:], _BUNDLE_DIGITS, what),
        chunks=tuple(_numbers(sections.get("chunks"), what)),
        digests=_digits(sections["digests"], _SHORT_DIGITS, what),
        files=tuple(_numbers(sections.get("files"), what)),
    )
    check = sections["check"]
    if _digits(check, _SHORT_DIGITS, what) != ticket.check:
        raise ParseError(
            f"{what}: line {check[0].line}: the check does not fit the lines above it",
            hint="a digit was misheard or mistyped: read the ticket out again, line by line",
        )
    return ticket


def _words(data: bytes, what: str) -> Iterator[_Word]:
    if len(data) > MAX_TICKET_SIZE:
        raise ParseError(f"{what}: over {MAX_TICKET_SIZE} bytes, too large for a ticket")
    plain = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = plain.decode("ascii")
    except UnicodeDecodeError as error:
        number = len(f"{plain[: error.start].decode('ascii')}.".splitlines())
        raise _refuse(what, number, f"not plain ASCII: byte {plain[error.start]:#04x}") from None
    for number, line in enumerate(text.lower().splitlines(), start=1):
        yield from (_Word(word, number) for word in line.split())


def _check_header(words: Sequence[_Word], what: str) -> None:
    texts = tuple(word.text for word in words)
    if texts[:3] != _HEADER:
        raise _refuse(what, words[0].line if words else 1, f"expected {' '.join(_HEADER)!a}")
    if texts[3:] != (_VERSION,):
        version = texts[3][:80] if texts[3:] else ""
        raise _refuse(
            what, words[-1].line, f"ticket version {version!a}; this airpack reads {_VERSION}"
        )


def _sections(words: Sequence[_Word], what: str) -> Mapping[str, list[_Word]]:
    """The words of each keyword's section, the keyword first, in their order."""
    sections: dict[str, list[_Word]] = {}
    current: list[_Word] = []
    for word in words:
        if word.text in _KEYWORDS:
            if not _may_follow(word.text, sections):
                raise _refuse(what, word.line, f"{word.text!a} stands twice, or out of order")
            current = sections[word.text] = [word]
        elif not current:
            raise _refuse(what, word.line, f"{word.text[:80]!a} where {_KEYWORDS[0]!a} should be")
        else:
            current.append(word)
    line = words[-1].line if words else 1
    for keyword in _KEYWORDS:
        if keyword not in sections and keyword not in _OPTIONAL:
            raise _refuse(what, line, f"ends before {keyword!a}")
    if not _OPTIONAL & sections.keys():
        raise _refuse(what, line, "asks for nothing: neither 'chunks' nor 'files'")
    return sections


def _may_follow(keyword: str, sections: Iterable[str]) -> bool:
    """Whether ``keyword`` may come behind ``sections``: in order, with none left out but some."""
    place = _KEYWORDS.index(keyword)
    passed = {*_KEYWORDS[:place]}
    return passed - _OPTIONAL <= {*sections} <= passed


def _title(section: Sequence[_Word], what: str) -> str:
    """The name of the bundle, the second word of ``section``."""
    title = section[1].text if len(section) > 1 else ""
    if not _TITLE.match(title):
        raise _refuse(what, section[-1].line, f"{title[:80]!a} is not the name of a bundle")
    return title


def _digits(section: Sequence[_Word], count: int, what: str) -> str:
    """The ``count`` hexadecimal digits behind the first word of ``section``."""
    digits = "".join(word.text for word in section[1:])
    if not re.fullmatch(f"[0-9a-f]{{{count}}}", digits):
        fact = f"{digits[:80]!a} is not {count} digits of 0-9 and a-f"
        raise _refuse(what, section[0].line, fact)
    return digits


def _numbers(section: Sequence[_Word] | None, what: str) -> Iterator[int]:
    """The numbers behind the first word of ``section``, if there is one; lines count from 1."""
    if section is None:
        return
    kind = section[0].text.removesuffix("s")
    previous, count = 0 if kind == "file" else -1, 0
    for word in _joined(section[1:]):
        match = _RANGE.match(word.text)
        if not match:
            raise _refuse(what, word.line, f"{word.text[:80]!a} is not a {kind}, as 17 or 20-25")
        first, last = int(match[1]), int(match[2] or match[1])
        if first <= previous or last < first:
            raise _refuse(what, word.line, f"{word.text} is out of order")
        previous, count = last, count + last - first + 1
        if count > MAX_TICKET_CHUNKS:
            raise _refuse(what, word.line, f"asks for more than {MAX_TICKET_CHUNKS} {kind}s")
        yield from range(first, last + 1)
    if not count:
        raise _refuse(what, section[0].line, f"names no {kind}")


def _joined(words: Iterable[_Word]) -> Iterator[_Word]:
    """``words``, those put together that a hyphen joins with spaces around it."""
    held: _Word | None = None
    for word in words:
        if held and (held.text.endswith("-") or word.text.startswith("-")):
            held = _Word(held.text + word.text, held.line)
        else:
            if held:
                yield held
            held = word
    if held:
        yield held


def _refuse(what: str, line: int, fact: str) -> ParseError:
    return ParseError(f"{what}: line {line}: {fact}")
