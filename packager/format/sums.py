"""``SHA256SUMS``: the one signed document, in the format of coreutils' ``sha256sum``.

Each line is 64 lower-case hexadecimal digits, two spaces, a name, a line feed. Names are plain
medium names, each once, sorted, so that the same files always give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from packager.errors import AirpackError, MalformedError, UsageError
from packager.format.digest import Digest
from packager.format.relpath import check_distinct, check_medium_name

SUMS_NAME = "SHA256SUMS"
SPARE_PREFIX = "spare."  # a second copy of a small file, elsewhere on the same medium
MAX_SUMS_SIZE = 1 << 20

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]{1,120})\Z")
_KEYED = re.compile(
    r"(?:spare\.)?SHA256SUMS\.[0-9a-f]{16}\.sig\Z"
    r"|(?:spare\.)?provenance\.[0-9a-f]{16}\.dsse\.json\Z"
    r"|(?:spare\.)?(?P<variant>[a-z0-9][a-z0-9._-]{0,62})\.[0-9a-f]{16}\.model\.sig\Z"
)
# What is made when the sums are there; in any case, since some media do not tell cases apart.
_UNLISTED = re.compile(
    r"(?:spare\.)?SHA256SUMS(?:\.[0-9a-f]{16}\.sig)?\Z|.*\.[0-9a-f]{16}\.model\.sig\Z",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"SHA256SUMS\.([0-9a-f]{16})\.sig\Z")


def encode_sums(digests: Mapping[str, Digest]) -> bytes:
    """Write the sums of the files named, sorted by name.

    Raises ``UnsafeContentError`` for a name that some medium cannot hold, or holds as another's,
    and ``UsageError`` for more names than any host will read.
    """
    check_distinct(digests)
    lines = (f"{digests[name]}  {check_medium_name(name)}\n" for name in sorted(digests))
    data = "".join(lines).encode("ascii")
    if len(data) > MAX_SUMS_SIZE:
        raise UsageError(
            f"{SUMS_NAME}: {len(digests)} files are more than a host reads",
            hint="choose larger volumes",
        )
    return data


def parse_sums(data: bytes) -> Mapping[str, Digest]:
    """Read sums strictly; raises ``MalformedError`` unless they are as airpack writes them."""
    if len(data) > MAX_SUMS_SIZE:
        raise MalformedError(f"{SUMS_NAME}: {len(data)} bytes, more than {MAX_SUMS_SIZE}")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError(f"{SUMS_NAME}: not plain ASCII") from None
    digests: dict[str, Digest] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        match = _LINE.match(line)
        if not match:
            raise MalformedError(f"{SUMS_NAME}: line {number} is not a sha256 digest and a name")
        if _UNLISTED.match(match[2]):
            raise MalformedError(f"{SUMS_NAME}: lists {match[2]}, as sums cannot")
        digests[match[2]] = Digest(match[1])
    try:
        canonical = encode_sums(digests)
    except AirpackError as error:
        raise MalformedError(f"{SUMS_NAME}: {error.message}") from None
    if canonical != data:
        raise MalformedError(f"{SUMS_NAME}: a name stands twice, out of order, or the end is cut")
    return MappingProxyType(digests)


def spare_name(name: str) -> str:
    """What the second copy of the small file ``name`` is called."""
    return f"{SPARE_PREFIX}{name}"


def signature_name(key_id: str) -> str:
    """The name of the signature that the key ``key_id`` makes over the sums."""
    return f"{SUMS_NAME}.{key_id}.sig"


def signature_key_id(name: str) -> str | None:
    """The key id in a signature's name, or ``None`` for any other file."""
    match = _SIGNATURE.match(name)
    return match[1] if match else None


def carries_key_id(name: str) -> bool:
    """Whether ``name`` is of a kind that signers add later, so that no sums can list it."""
    return bool(_KEYED.match(name))


def keyed_variant(name: str) -> str | None:
    """What a model signature, or a spare copy of one, is named after; ``None`` of another file."""
    match = _KEYED.match(name)
    return match["variant"] if match else None
