"""The test vectors of ``FORMAT.md``, each computed anew: whoever writes a reader relies on them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.bundles import make_key

import packager
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.keyset import KeyEntry, KeySet, encode_key_set
from packager.format.parity import BLOCK_SIZE, Matrix, bit_rows, combine, parity_matrix
from packager.format.tar import plan_tar
from packager.format.ticket import Ticket, encode_ticket, parse_ticket

PAGE = (Path(packager.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
GIB = 1 << 30
SPACED_JSON = r'{"b": [1, "\u0041"], "a": null}'


def read_vectors() -> dict[str, str]:
    """The table's inputs, as they stand there, each with its output."""
    table = PAGE.split("\n## Test vectors\n")[1]
    cells = [re.split(r"(?<!\\)\|", line)[1:3] for line in table.splitlines() if line[:1] == "|"]
    return {given.strip(): result.strip() for given, result in cells[2:]}


VECTORS = read_vectors()


def payload(*files: tuple[str, int]) -> str:
    layout = plan_tar(files)
    offsets = " and ".join(str(entry.offset) for entry in layout.entries)
    return f"offsets {offsets}; size {layout.size}"


def header(path: str, size: int) -> bytes:
    [entry] = plan_tar([(path, size)]).entries
    return entry.header


def rows(matrix: Matrix) -> str:
    return " / ".join(" ".join(map(str, row)) for row in matrix)


def bits(element: int) -> str:
    return " ".join(f"{{{','.join(map(str, row))}}}" for row in bit_rows(element))


def parity_chunks() -> str:
    full = bytes(n % 251 for n in range(BLOCK_SIZE))
    other = bytes((7 * n + 1) % 256 for n in range(BLOCK_SIZE))
    sums = combine(parity_matrix(3, 2), [full, other, b"abc"], BLOCK_SIZE)
    return f"digests {', '.join(f'`{Digest.of(data)}`' for data in sums)}"


def large_header() -> str:
    data = header("a", 8 * GIB)
    assert data[154:156] == b"\0 "
    checksum = data[148:154].decode("ascii")
    return (
        f"size field `{data[124:136].hex()}`; checksum `{checksum}`, NUL, space; "
        f"digest `{Digest.of(data)}`"
    )


def long_header() -> str:
    data = header("x" * 101, 1)
    return f"{len(data)} bytes; digest `{Digest.of(data)}`"


def ticket_of(chunks: Iterable[int], files: Iterable[int]) -> Ticket:
    wanted = tuple(chunks), tuple(files)
    digests = "".join(Digest.of(str(n).encode()).hex for numbers in wanted for n in numbers)
    short = Digest.of(digests.encode()).hex[:8]
    return Ticket("demo-1.0", "0123456789abcdef" * 2, wanted[0], short, wanted[1])


def smallest_key_set() -> str:
    key_set = KeySet(1, 1, (), (KeyEntry("a", b"spki"),))
    document = encode_key_set(key_set).decode("ascii")
    return f"`{document}`; fingerprint `{key_set.fingerprint}`"


TICKET = ticket_of((17, *range(20, 26), 311), (3, 15))

COMPUTED = {
    "2 times, bits: rows of its bit matrix": bits(2),
    "coefficients of 3 volumes, 2 of parity": rows(parity_matrix(3, 2)),
    "coefficients of 4 volumes, 3 of parity": rows(parity_matrix(4, 3)),
    "coefficients of 5 volumes, 4 of parity": rows(parity_matrix(5, 4)),
    "coefficients of 1 volume, 2 of parity": rows(parity_matrix(1, 2)),
    "two parity chunks of 65,536 bytes, of the chunks A (byte n is n mod 251), B (byte n is "
    "(7n + 1) mod 256) and C (`abc` and no more)": parity_chunks(),
    f"canonical JSON of `{SPACED_JSON}`": f"`{canonical.encode(json.loads(SPACED_JSON)).decode()}`",
    "payload of `a` with 1 byte, `b` with 600 bytes": payload(("a", 1), ("b", 600)),
    "payload of 100 times `x` with 0 bytes, 101 times `y` with 513 bytes": payload(
        ("x" * 100, 0), ("y" * 101, 513)
    ),
    "header of `a` with 1 byte": f"digest `{Digest.of(header('a', 1))}`",
    "header of `a` with 8 GiB": large_header(),
    "both headers, and the path between, of 101 times `x` with 1 byte": long_header(),
    "ticket for `demo-1.0`, sums `0123456789abcdef` twice, chunks 17 20-25 311, files 3 15; the "
    "digest of each taken as that of its number in decimal": (
        f"`digests {TICKET.digests}`; `check {TICKET.check}`"
    ),
    "key set 1 of one key `a`, its `spki` the four bytes `spki`, threshold 1, all else false, null "
    "or empty": smallest_key_set(),
}
KEY_ID = "key id of a P-256 key"


@pytest.mark.parametrize("given", [given for given in VECTORS if given != KEY_ID])
def test_a_vector_of_the_page_is_what_this_airpack_computes(given: str) -> None:
    assert VECTORS[given] == COMPUTED[given]


def test_every_vector_that_is_computed_here_stands_on_the_page() -> None:
    assert VECTORS.keys() == {*COMPUTED, KEY_ID}


def test_the_page_s_command_prints_the_id_of_a_key(tmp_path: Path) -> None:
    key = make_key(tmp_path / "KEY")
    command = VECTORS[KEY_ID].strip("`").replace(r"\|", "|")
    made = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert made.stdout.decode().strip() == key.public.key_id


def test_a_ticket_whose_digits_are_grouped_has_the_check_of_the_vector() -> None:
    text = encode_ticket(TICKET)
    assert "check f47f a535" in text
    assert parse_ticket(text.encode("ascii"), "t.txt") == TICKET
