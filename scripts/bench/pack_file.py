"""Pack one file as a signed bundle, the way ``airpack build`` packs what it has made.

python scripts/bench/pack_file.py MODEL DIGEST OUTPUT KEY PARITY
"""

from __future__ import annotations

import sys
from pathlib import Path

from packager.connected.keys import open_key
from packager.connected.layout import Member, plan_payload
from packager.connected.pack import write_payload
from packager.connected.parity import write_parity
from packager.connected.sign import sign_bundle
from packager.format.bundle import (
    INDEX_NAME,
    Bundle,
    Origin,
    Variant,
    encode_bundle,
    variant_directory,
)
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, encode_sums
from packager.format.target import Target
from packager.progress import Silent
from packager.store.digests import file_digest


def main(model: Path, digest: Digest, output: Path, key: Path, parity: int) -> None:
    """Write ``output``/bench-1.0.0, with ``parity`` parity volumes."""
    directory = output / "bench-1.0.0"
    directory.mkdir(parents=True)
    place = variant_directory("bench", "original")
    members = [Member(f"{place}/{model.name}", model, model.stat().st_size, digest)]
    plan = plan_payload(members, None, parity)
    packed = write_payload(plan, directory, Silent())
    sums = write_parity(packed.payload, plan.volumes, parity, directory, Silent())
    index = Bundle(
        name="bench",
        version="1.0.0",
        sequence=1,
        created="2026-11-24T00:00:00Z",
        expires=None,
        signers=1,
        airpack="0",
        engine="none",
        origin=Origin("folder", "bench", "0" * 64, None),
        lock=Digest.of(b""),
        payload=packed.payload,
        volumes=plan.volumes,
        parity=sums.volumes,
        files=plan.files,
        variants=(Variant("original", "safetensors", "as published", place, None, None),),
        targets=(Target("linux_x86_64", ("3.11",), "2.28"),),
    )
    (directory / INDEX_NAME).write_bytes(encode_bundle(index))
    digests = packed.volume_digests | sums.digests
    digests[INDEX_NAME] = file_digest(directory / INDEX_NAME)
    (directory / SUMS_NAME).write_bytes(encode_sums(digests))
    sign_bundle(directory, open_key(key, None))


if __name__ == "__main__":
    model, digest, output, key, parity = sys.argv[1:]
    main(Path(model), Digest(digest), Path(output), Path(key), int(parity))
