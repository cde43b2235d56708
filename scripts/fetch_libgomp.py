"""Put the OpenMP runtime that the engine needs into a folder, unless this system has one.

python scripts/fetch_libgomp.py .venv/lib/airpack
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from packager.connected.provisions.carried import libgomp_wheel
from packager.connected.provisions.libgomp import LIBGOMP_NAME, extract_libgomp
from packager.format.recipe import DEFAULT_TARGETS
from packager.progress import Silent


def main(folder: Path) -> None:
    """Fetch it into ``folder``, if it is neither there nor the system's."""
    try:
        ctypes.CDLL(LIBGOMP_NAME)
    except OSError:
        if not (folder / LIBGOMP_NAME).exists():
            with TemporaryDirectory() as scratch:
                extract_libgomp(libgomp_wheel(DEFAULT_TARGETS[0], Path(scratch), Silent()), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
