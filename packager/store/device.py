"""Which device a directory is on, as far as Linux says without root: for the record of custody."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SYS = Path("/sys")
_BY = Path("/dev/disk")
_MAX_TEXT = 200  # characters; what a stick says of itself is a stranger's word
_HEX_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Device:
    """What a medium says of itself. Each is ``None`` where it does not.

    ``label`` and ``uuid`` are the filesystem's, ``model`` and ``serial`` the device's own.
    """

    label: str | None = None
    uuid: str | None = None
    model: str | None = None
    serial: str | None = None


def identify_device(directory: Path, *, sys: Path = _SYS, by: Path = _BY) -> Device:
    """What holds ``directory``; says nothing where the system does not tell."""
    try:
        number = directory.stat().st_dev
    except OSError:
        return Device()
    block = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
    try:
        place = block.resolve(strict=True)
    except OSError:  # a filesystem without a device: a network share, memory
        return Device()
    return Device(
        label=_name_in(by / "by-label", place.name),
        uuid=_name_in(by / "by-uuid", place.name),
        model=_attribute(place, ("device/model", "product", "model"), sys),
        serial=_attribute(place, ("device/serial", "serial"), sys),
    )


def _name_in(directory: Path, device: str) -> str | None:
    """The name of the link in ``directory`` that leads to ``device``; udev(7) escapes it."""
    with suppress(OSError):
        for link in sorted(directory.iterdir()):
            if link.is_symlink() and link.readlink().name == device:
                return _plain(_HEX_ESCAPE.sub(lambda m: chr(int(m[1], 16)), link.name))
    return None


def _attribute(place: Path, names: tuple[str, ...], sys: Path) -> str | None:
    """The first of the attributes ``names`` that the device, or what it hangs on, has.

    What is only made up in memory or of other devices has no serial number of its own.
    """
    if "virtual" in place.relative_to(sys.resolve()).parts:
        return None
    for directory in (place, *place.parents):
        if directory == sys.resolve():
            return None
        for name in names:
            with suppress(OSError):
                text = (directory / name).read_text("utf-8", errors="replace")
                if plain := _plain(text):
                    return plain
    return None


def _plain(text: str) -> str | None:
    """One printable line of ``text``, not too long, or ``None`` where nothing is left."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_MAX_TEXT] or None
