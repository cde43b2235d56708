"""Changes that keep a document nearly right, so that what they break lies deep in a parser.

Changed bytes alone rarely get past a canonical form, a size in a prefix or a check. These change
one thing of what a document means, and put the rest right again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from packager.format.digest import Digest

Mutation = Callable[[bytes, Random], bytes]

_TEXTS = (
    "", ".", "..", "a/../b", "/etc/passwd", "a\\b", "CON", "aux.txt", "-rf", "a ", "\u202e",
    "\x1b[2J", "\ud800", "\uff0e\uff0e", "e\u0301", "ß", "a" * 64, "a" * 1025, "0" * 64,
    "payload.00001", "2026-11-24", "2026-1-4", "0001-01-01", "9999-12-31T23:59:59Z", "QR==", "Q",
    "sha256", "p256", "null", "1e999", "0x10", "1:30", "chunks", "17-20", "models/tiny/original",
    "tiny-1.0.0",
)  # fmt: skip
_NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 255, 256, 4096, 1 << 16, (1 << 32) - 1, 1 << 40, (1 << 53) - 1, 1 << 53,
    1 << 63, (1 << 64) - 1,
)  # fmt: skip
_VALUES = (None, True, False, 1.5, [], {}, [[]], [{}], 10**4000, *_NUMBERS, *_TEXTS)
_PIECES = (
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b"  ",
    b"\xff",
    b"\xef\xbb\xbf",
    b"'",
    b'"',
    b"{",
    b"[",
)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """``data`` with a piece of it cut out, said twice, or replaced."""
    begin = random.randint(0, len(data))
    end = min(len(data), begin + random.choice((0, 1, 1, 2, 4, 8, 16, 64)))
    number = random.choice(_NUMBERS)
    pieces = (
        data[begin:end] * 2,
        random.choice(_PIECES),
        random.randbytes(end - begin or 1),
        (number & (1 << 64) - 1).to_bytes(8, "little"),
        (number & (1 << 32) - 1).to_bytes(4, "little"),
        str(number).encode(),
        random.choice(_TEXTS).encode("utf-8", "surrogatepass"),
    )
    return data[:begin] + random.choice(pieces) + data[end:]


def mutate_json(data: bytes, random: Random) -> bytes:
    """The document ``data`` with one of its nodes changed, in canonical form."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)
    _change(*random.choice(list(_places(root))), root, random)
    text = json.dumps(root[:1], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text[1:-1].encode("utf-8", "surrogatepass")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in ``node``, a list or a mapping: what holds it, and its index or key there."""
    for key in range(len(node)) if isinstance(node, list) else list(node):
        yield node, key
        if isinstance(node[key], list | dict):
            yield from _places(node[key])


def _change(holder: Any, key: Any, root: list[Any], random: Random) -> None:
    """Change what stands at one place."""
    way = random.randrange(8)
    if way == 0:
        holder[key] = random.choice(_VALUES)
    elif way == 1:
        other, there = random.choice(list(_places(root)))
        holder[key] = json.loads(json.dumps(other[there]))
    elif way == 2 and holder is not root:
        del holder[key]
    elif way == 3 and isinstance(holder, list):
        holder.insert(random.randint(0, len(holder)), holder[key])
    elif way == 4 and isinstance(holder, list):
        random.shuffle(holder)
    elif way == 5 and isinstance(holder, dict):
        holder[random.choice((key[:-1], f"{key}x", *_TEXTS[:12]))] = holder.pop(key)
    else:
        holder[key] = _near(holder[key], random)


def _near(value: Any, random: Random) -> Any:
    """A value of the same kind, little different."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + random.choice((-1, 1, -512, 512, 1 << 16, -value, value))
    if isinstance(value, str):
        return _near_text(value, random)
    return random.choice((value * 2, value[:1], value[1:])) if isinstance(value, list) else {}


def _near_text(text: str, random: Random) -> str:
    if random.random() < 0.3:
        try:
            inside = base64.b64decode(text, validate=True)
        except ValueError:
            pass
        else:
            inner = mutate_json if inside.startswith(b"{") else mutate_bytes
            return base64.b64encode(inner(inside, random)).decode("ascii")
    at = random.randint(0, len(text))
    piece = random.choice((*_TEXTS, *"0aA/.-_ :=\n", text[at : at + 4] * 2))
    return text[:at] + piece + text[at + random.choice((0, 0, 1, len(piece))) :]


def mutate_lines(data: bytes, random: Random) -> bytes:
    """``data`` with a line cut out, said twice, moved, or changed."""
    lines = data.splitlines(keepends=True) or [b""]
    at = random.randrange(len(lines))
    line = lines.pop(at)
    way = random.randrange(5)
    if way == 1:
        lines[at:at] = [line, line]
    elif way == 2:
        lines.insert(random.randint(0, len(lines)), line)
    elif way >= 3:
        lines.insert(at, mutate_bytes(line, random))
    return b"".join(lines)


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """A file of tensors with its header changed, and sizes that fit it, most times."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = mutate_json(data[8:end], random)
    header += b" " * random.choice((0, 0, 0, 1, 8))
    body = data[end:]
    if random.random() < 0.2:
        body = random.choice((body[:-1], body + b"\0", b""))
    return len(header).to_bytes(8, "little") + header + body


def mutate_ticket(data: bytes, random: Random) -> bytes:
    """A ticket with a line changed, and the check that fits its lines, most times."""
    body = b"".join(data.splitlines(keepends=True)[:-1])
    changed = mutate_lines(body, random)
    check = Digest.of(changed).hex[:8] if random.random() < 0.9 else "00000000"
    return changed + f"check {check}\n".encode()


_LINES = ("sums", "recipe", "public-key", "model-key")
_BYTES = ("gguf", "imatrix")
MUTATIONS: Mapping[str, Mutation] = {
    **dict.fromkeys(_LINES, mutate_lines),
    **dict.fromkeys(_BYTES, mutate_bytes),
    "safetensors": mutate_safetensors,
    "ticket": mutate_ticket,
}
"""The mutation that suits a target; :func:`mutate_json` suits the others."""


def mutate(target: str, data: bytes, random: Random) -> bytes:
    """``data`` of ``target`` changed once or a few times, not always in the way that suits it."""
    suitable = MUTATIONS.get(target, mutate_json)
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        change = suitable if random.random() < 0.9 else mutate_bytes
        data = change(data, random)
    return data
