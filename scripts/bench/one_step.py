"""One step in a process of its own, so that its memory can be told from others'.

python scripts/bench/one_step.py parse INDEX
python scripts/bench/one_step.py wide PLACE KEY VOLUMES PARITY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from signed import TITLE, member, sign_volumes
from tensors import HEAD_SIZE, tensor_head

from packager.connected.packing.layout import Cut, PayloadPlan
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.format.bundle import parse_bundle
from packager.format.tar import BLOCK_SIZE, END_SIZE, plan_tar
from packager.format.volumes import MAX_CHUNK_SIZE, Volume, volume_name
from packager.progress import Silent
from packager.store.digests import file_digest


def parse(index: Path) -> None:
    """Read an index."""
    parse_bundle(index.read_bytes())


def wide(place: Path, key: Path, volumes: int, parity: int) -> None:
    """Pack ``place``/bench-1.0.0: one stripe of the largest chunks, across so many volumes.

    In each volume is one file, of random bytes: zeros would take less memory in sums.
    """
    members = []
    for number in range(volumes):
        end = END_SIZE if number == volumes - 1 else 0
        source = place / f"model-{number:05d}.safetensors"
        size = MAX_CHUNK_SIZE - BLOCK_SIZE - end
        source.write_bytes(tensor_head(size) + os.urandom(size - HEAD_SIZE))
        members.append(member(source, source.stat().st_size, file_digest(source)))
    layout = plan_tar((m.path, m.size) for m in members)
    cut = tuple(
        Volume(volume_name(number + 1), MAX_CHUNK_SIZE, number * MAX_CHUNK_SIZE)
        for number in range(volumes)
    )
    plan = PayloadPlan(tuple(members), layout, Cut(MAX_CHUNK_SIZE, cut, parity))
    directory = place / TITLE
    directory.mkdir()
    packed = write_payload(plan, directory, Silent())
    sums = write_parity(plan, packed.payload, directory, Silent())
    digests = packed.volume_digests | sums.digests
    sign_volumes(directory, plan, packed.payload, sums.volumes, digests, key)


if __name__ == "__main__":
    step, place, *words = sys.argv[1:]
    if step == "parse":
        parse(Path(place))
    else:
        key, volumes, parity = words
        wide(Path(place), Path(key), int(volumes), int(parity))
