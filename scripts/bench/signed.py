"""The index, the sums and the signature that make volumes a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from packager.connected.packing.layout import Member, PayloadPlan
from packager.connected.packing.spares import write_spares
from packager.connected.signing.keys import open_key
from packager.connected.signing.sign import sign_bundle
from packager.format.bundle import INDEX_NAME, Bundle, Origin, encode_bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, encode_sums, spare_name
from packager.format.target import Target
from packager.format.variant import Variant, variant_directory
from packager.format.volumes import ParityVolume, Payload
from packager.store.digests import file_digest

NAME, VERSION = "bench", "1.0.0"
TITLE = f"{NAME}-{VERSION}"
PLACE = variant_directory(NAME, "original")


def member(source: Path, size: int, digest: Digest) -> Member:
    """A file of the one variant that these bundles have."""
    return Member(f"{PLACE}/{source.name}", source, size, digest)


def sign_volumes(
    directory: Path,
    plan: PayloadPlan,
    payload: Payload,
    parity: Sequence[ParityVolume],
    digests: Mapping[str, Digest],
    key: Path,
) -> None:
    """Write what is missing in ``directory``, where the volumes with ``digests`` lie."""
    index = Bundle(
        name=NAME,
        version=VERSION,
        sequence=1,
        created="2026-11-24T00:00:00Z",
        expires=None,
        signers=1,
        airpack="0",
        engine="none",
        origin=Origin("folder", NAME, "0" * 64, None),
        lock=Digest.of(b""),
        payload=payload,
        volumes=plan.volumes,
        parity=tuple(parity),
        files=plan.files,
        variants=(Variant("original", "safetensors", "as published", PLACE, None, None),),
        targets=(Target("linux_x86_64", ("3.11",), "2.28"),),
    )
    (directory / INDEX_NAME).write_bytes(encode_bundle(index))
    write_spares(directory, [INDEX_NAME])
    digest = file_digest(directory / INDEX_NAME)
    listed = {**digests, INDEX_NAME: digest, spare_name(INDEX_NAME): digest}
    (directory / SUMS_NAME).write_bytes(encode_sums(listed))
    write_spares(directory, [SUMS_NAME])
    sign_bundle(directory, open_key(key, None))
