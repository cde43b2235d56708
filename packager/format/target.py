"""The hosts a bundle is for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A kind of host: ``linux_x86_64``, the Pythons it may have, the oldest glibc."""

    platform: str
    python: tuple[str, ...]
    glibc: str
