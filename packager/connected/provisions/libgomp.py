"""The OpenMP runtime that the engine needs and a bare host lacks.

A build host's own ``libgomp.so.1`` is linked to its own, newer glibc (Debian 12's needs 2.34),
so it would not load on an older target. Wheels of the manylinux kind carry one built for an
old glibc, under a name of their own; ``pykdtree``'s is the smallest such wheel. Only that
library is taken out of it. It is GCC's, under the GPL version 3 with the GCC Runtime Library
Exception, and travels with both texts.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from packager.errors import AirpackError
from packager.store.atomic import make_directory, naming_refusals, write_file

LIBGOMP_NAME = "libgomp.so.1"
LIBGOMP_SOURCE = "pykdtree==1.4.3"  # pinned: the payload's bytes must not change of themselves
LIBGOMP_PYTHON = "3.12"  # any that the wheel is made for: the library knows nothing of Python
_MEMBER = re.compile(r"[^/]+\.libs/(libgomp-[0-9a-f]+\.so\.1[0-9.]*)\Z")
_MAX_SIZE = 4 << 20


def extract_libgomp(wheel: Path, directory: Path) -> Path:
    """Write ``libgomp.so.1`` out of ``wheel`` into ``directory``.

    Its SONAME, which the wheel's makers changed along with the file's name, is set back, so that
    a library asking for ``libgomp.so.1`` finds it loaded. Raises ``AirpackError`` if the wheel
    holds no libgomp.
    """
    make_directory(directory)
    path = directory / LIBGOMP_NAME
    write_file(path, _find_libgomp(wheel))
    return path


def _find_libgomp(wheel: Path) -> bytes:
    try:
        with naming_refusals(wheel), zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                match = _MEMBER.match(entry.filename)
                if match and entry.file_size <= _MAX_SIZE:
                    return rename_soname(archive.read(entry), match[1], LIBGOMP_NAME)
    except zipfile.BadZipFile:
        raise AirpackError(f"{wheel}: not a wheel") from None
    raise AirpackError(f"{wheel.name}: holds no libgomp")


def rename_soname(library: bytes, old: str, new: str) -> bytes:
    """An ELF library with the string ``old`` of its dynamic string table replaced by ``new``.

    The new name may not be longer: the bytes left over become NUL, so that no offset moves.
    """
    before = old.encode("ascii") + b"\0"
    after = new.encode("ascii").ljust(len(before), b"\0")
    if len(after) != len(before) or library.count(before) != 1:
        raise AirpackError(f"libgomp: cannot set its name {old} back to {new}")
    return library.replace(before, after)
