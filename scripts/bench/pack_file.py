"""Pack one file as a signed bundle, the way ``airpack build`` packs what it has made.

python scripts/bench/pack_file.py MODEL DIGEST OUTPUT KEY PARITY

Prints the seconds that the parity took, and those of processor time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from signed import TITLE, member, sign_volumes

from packager.connected.packing.layout import plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.format.digest import Digest
from packager.progress import Silent


def main(model: Path, digest: Digest, output: Path, key: Path, parity: int) -> None:
    """Write ``output``/bench-1.0.0, with ``parity`` parity volumes."""
    directory = output / TITLE
    directory.mkdir(parents=True)
    plan = plan_payload([member(model, model.stat().st_size, digest)], None, parity)
    packed = write_payload(plan, directory, Silent())
    begun = time.monotonic(), time.process_time()
    sums = write_parity(plan, packed.payload, directory, Silent())
    print(time.monotonic() - begun[0], time.process_time() - begun[1])
    digests = packed.volume_digests | sums.digests
    sign_volumes(directory, plan, packed.payload, sums.volumes, digests, key)


if __name__ == "__main__":
    model, digest, output, key, parity = sys.argv[1:]
    main(Path(model), Digest(digest), Path(output), Path(key), int(parity))
