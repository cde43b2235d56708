"""The lock's document: what is written is read back, and nothing else is."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.lock import (
    GIT_BLOB,
    SHA256,
    ContentId,
    Folder,
    HubCommit,
    Lock,
    LockedFile,
    encode_lock,
    parse_lock,
)

COMMIT = HubCommit("org/tiny", "0123456789abcdef" * 2 + "01234567")
FILES = (
    LockedFile("config.json", 10, ContentId(GIT_BLOB, "ab" * 20)),
    LockedFile("model.safetensors", 1 << 40, ContentId(SHA256, "cd" * 32)),
)
LOCK = Lock(Digest("ef" * 32), COMMIT, "apache-2.0", FILES)

ids = st.builds(ContentId, st.just(SHA256), st.text("0123456789abcdef", min_size=64, max_size=64))
locks = st.builds(
    Lock,
    recipe=st.binary(max_size=9).map(Digest.of),
    source=st.just(COMMIT) | st.builds(Folder, st.text("abc./ é", min_size=1)),
    licence=st.none() | st.just("mit"),
    files=st.dictionaries(
        st.text("abcdefé0123-", min_size=1).filter(lambda name: name[0] != "-"),
        st.tuples(st.integers(0, 1 << 44), ids),
        max_size=5,
    ).map(lambda files: tuple(LockedFile(p, s, i) for p, (s, i) in sorted(files.items()))),
)


@given(locks)
def test_written_lock_is_read_back(lock: Lock) -> None:
    assert parse_lock(encode_lock(lock)) == lock


def test_lock_holds_no_endpoint() -> None:
    document = json.loads(encode_lock(LOCK))

    assert set(document["source"]) == {"kind", "repository", "revision"}


def test_revision_of_a_folder_is_the_digest_of_its_files() -> None:
    folder = Lock(LOCK.recipe, Folder("x"), None, FILES)
    moved = Lock(LOCK.recipe, Folder("y"), None, FILES)
    changed = Lock(LOCK.recipe, Folder("x"), None, FILES[:1])

    assert folder.revision == moved.revision != changed.revision
    assert len(folder.revision) == 64
    assert LOCK.revision == COMMIT.revision
    assert LOCK.size == (1 << 40) + 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "lock: format: not airpack-lock"),
        ({"format_version": 2}, "not of format version 1"),
        ({"extra": 1}, "lock: extra: unknown field"),
        ({"recipe": "00"}, "lock: recipe: not a sha256"),
        ({"source": {"kind": "ftp"}}, "lock: source.kind: 'ftp' is neither"),
        ({"source": {"kind": "hub", "repository": "a/b", "revision": "main"}}, "not a commit"),
        ({"source": {"kind": "hub", "repository": "a/b", "revision": "abcdef"}}, "not a commit"),
        ({"source": {"kind": "hub", "repository": "a/b", "revision": "z" * 40}}, "not a commit"),
        ({"files": [{"path": "a", "size": -1, "content": "sha256:" + "0" * 64}]},
         "lock: files[0].size: "),
        ({"files": [{"path": "a", "size": True, "content": "sha256:" + "0" * 64}]},
         "lock: files[0].size: "),
        ({"files": [{"path": "a", "size": 1, "content": "md5:" + "0" * 32}]},
         "not a content id"),
        ({"files": [{"path": "a", "size": 1, "content": "git-blob:" + "0" * 64}]},
         "not a content id"),
        ({"files": [{"path": "../a", "size": 1, "content": "sha256:" + "0" * 64}]}, "'..'"),
        ({"files": [{"path": p, "size": 1, "content": "sha256:" + "0" * 64} for p in "ba"]},
         "not in order of path"),
        ({"files": [{"path": p, "size": 1, "content": "sha256:" + "0" * 64} for p in "aa"]},
         "each once"),
        ({"files": [{"path": p, "size": 1, "content": "sha256:" + "0" * 64} for p in "Aa"]},
         "same on some hosts"),
    ],
)  # fmt: skip
def test_document_that_is_not_a_lock_is_refused(change: dict[str, object], words: str) -> None:
    document = json.loads(encode_lock(LOCK)) | change

    with pytest.raises(MalformedError) as caught:
        parse_lock(canonical.encode(document))

    assert words in caught.value.message
    assert caught.value.exit_code == 10


@given(st.integers(0, 500), st.integers(0, 7))
def test_lock_with_one_flipped_bit_is_refused_or_says_something_else(at: int, bit: int) -> None:
    data = bytearray(encode_lock(LOCK))
    data[at % len(data)] ^= 1 << bit

    with contextlib.suppress(MalformedError):
        assert parse_lock(bytes(data)) != LOCK
