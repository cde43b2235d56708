"""Where the connected side keeps what can be had again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """``$AIRPACK_CACHE``, else ``$XDG_CACHE_HOME/airpack``, else ``~/.cache/airpack``.

    Raises ``RuntimeError`` where the user has no home.
    """
    if own := os.environ.get("AIRPACK_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "airpack"
