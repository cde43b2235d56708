"""Tickets and patches as they go to and fro: what a host asks for, what its sender makes of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from packager.connected.packing.ticket import build_patch
from packager.connected.signing.keys import SigningKey
from packager.format.ticket import encode_ticket, make_ticket, parse_ticket
from packager.isolated.media import open_media
from packager.isolated.patch import open_patch
from packager.isolated.recover import beyond_parity
from packager.isolated.repair import Repair, repair
from packager.isolated.verify import authenticate
from packager.progress import Silent
from support.bundles import CHUNK_SIZE, make_bundle
from support.hosts import NOW, Host
from support.tiny_source import weights


def bundle_without_parity(place: Path, key: SigningKey) -> Path:
    """A bundle in volumes of two chunks, of which nothing lost comes back by itself."""
    return make_bundle(
        place,
        [key],
        files={"model.safetensors": weights(random.Random(9).randbytes(15 * CHUNK_SIZE + 12_345))},
        volume_size=2 * CHUNK_SIZE,
        extra={"notes.txt": b"hello"},
    )


def asked(host: Host, *media: Path) -> tuple[int, ...]:
    """The chunks that the host's ticket asks for."""
    found = host.verify(*media)
    return beyond_parity(found.verified.bundle, found.lost)


def made_patch(
    host: Host, medium: Path, source: Path, output: Path, key: SigningKey, *only: int
) -> Path:
    """What the sender makes of the host's ticket, or of one for the chunks ``only``."""
    found = host.verify(medium)
    bundle = found.verified.bundle
    chunks, files = (only, None) if only else (beyond_parity(bundle, found.lost), found.lost_files)
    text = encode_ticket(make_ticket(bundle, found.verified.digest, chunks, files))
    return build_patch(parse_ticket(text.encode(), "t"), source, output, [key], Silent())


def mend(host: Host, medium: Path, *patches: Path, to: Path | None = None) -> Repair:
    """Repair ``medium`` with ``patches``."""
    media = open_media([medium])
    verified = authenticate(media, host.keyring, now=NOW)
    opened = [open_patch(patch, verified, host.keyring, now=NOW) for patch in patches]
    return repair(host.verify(medium), media, to, Silent(), opened)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of ``directory``."""
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def airpack(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as on a host whose root is ``home``."""
    return subprocess.run(
        [sys.executable, "-m", "packager", *map(str, words)],
        env={**os.environ, "AIRPACK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
