"""A signed patch stands for what the bundle's signers signed, and for nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.bundles import keyring_of, make_bundle, make_key

from packager.connected.signing.keys import SigningKey
from packager.errors import MalformedError, TrustError
from packager.format.bundle import INDEX_NAME
from packager.format.digest import Digest
from packager.format.patch import (
    CHUNKS_NAME,
    PATCH_NAME,
    Patch,
    PatchChunk,
    PatchFile,
    encode_patch,
    parse_patch,
)
from packager.format.sums import SUMS_NAME, encode_sums, signature_name
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.patch import VerifiedPatch, verify_patch
from packager.trust.verify import Evidence, VerifiedBundle, verify_bundle

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Sender:
    """Who signed a bundle of five chunks, and signs patches for it."""

    key: SigningKey
    verified: VerifiedBundle

    def chunk(self, number: int) -> PatchChunk:
        bundle = self.verified.bundle
        size = bundle.payload.chunk_range(number)[1]
        return PatchChunk(number, size, 0, bundle.chunk_digests[number])

    def accept(self, *parts: PatchChunk | PatchFile, now: datetime = NOW) -> VerifiedPatch:
        """What a host that trusts the key until 2027 makes of a patch of ``parts``."""
        chunks = tuple(part for part in parts if isinstance(part, PatchChunk))
        files = tuple(part for part in parts if isinstance(part, PatchFile))
        document = encode_patch(Patch("tiny-1.0.0", self.verified.digest, chunks, files))
        sums = encode_sums({PATCH_NAME: Digest.of(document), CHUNKS_NAME: Digest.of(b"")})
        evidence = Evidence(sums, {self.key.public.key_id: self.key.sign(sums)}, document)
        trusted = TrustedKey("sender", self.key.public, not_after=NEW_YEAR)
        return verify_patch(evidence, self.verified, Keyring().with_key(trusted), now=now)


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Sender:
    folder = tmp_path_factory.mktemp("sender")
    key = make_key(folder / "key")
    evidence = _read(make_bundle(folder, [key]), key)
    return Sender(key, verify_bundle(evidence, keyring_of(key), now=NOW))


def _read(bundle: Path, key: SigningKey) -> Evidence:
    signature = (bundle / signature_name(key.public.key_id)).read_bytes()
    sums, index = ((bundle / name).read_bytes() for name in (SUMS_NAME, INDEX_NAME))
    return Evidence(sums, {key.public.key_id: signature}, index)


def test_chunks_of_the_index_and_files_of_the_sums_are_taken(sender: Sender) -> None:
    last = len(sender.verified.bundle.chunk_digests) - 1
    index = PatchFile(INDEX_NAME, 1, 0, sender.verified.sums[INDEX_NAME])
    accepted = sender.accept(sender.chunk(0), sender.chunk(last), index)
    assert [str(part) for part in accepted.patch.parts] == ["chunk 0", f"chunk {last}", INDEX_NAME]
    assert parse_patch(accepted.evidence.index) == accepted.patch


def test_a_patch_by_a_key_that_is_no_longer_valid_is_refused(sender: Sender) -> None:
    with pytest.raises(TrustError, match="was valid until 2027-01-01"):
        sender.accept(sender.chunk(0), now=NEW_YEAR)


def test_the_chunk_behind_the_last_is_refused_and_not_looked_up(sender: Sender) -> None:
    count = len(sender.verified.bundle.chunk_digests)
    with pytest.raises(MalformedError, match=f"chunk {count}; the bundle has {count}"):
        sender.accept(replace(sender.chunk(0), number=count))


def test_a_chunk_of_another_size_or_digest_is_refused(sender: Sender) -> None:
    chunk = sender.chunk(1)
    for other in (replace(chunk, size=chunk.size - 1), replace(chunk, digest=Digest.of(b""))):
        with pytest.raises(MalformedError, match="chunk 1 is not the one the bundle has"):
            sender.accept(other)


def test_a_volume_is_no_small_file_though_the_sums_list_it(sender: Sender) -> None:
    name = sender.verified.bundle.volumes[0].name
    with pytest.raises(MalformedError, match="not a small file that the bundle has"):
        sender.accept(PatchFile(name, 1, 0, sender.verified.sums[name]))


def test_a_file_that_the_sums_do_not_list_or_list_otherwise_is_refused(sender: Sender) -> None:
    for file in (
        PatchFile("extra.txt", 1, 0, Digest.of(b"x")),
        PatchFile(INDEX_NAME, 1, 0, Digest.of(b"x")),
    ):
        with pytest.raises(MalformedError, match="not a small file that the bundle has"):
            sender.accept(file)
