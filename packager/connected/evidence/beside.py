"""What a person should find beside the weights, whatever else stays behind."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# MODEL_LICENSE too.
_EVIDENCE = re.compile(r"licen[cs]e|notice|copying|copyright|readme|policy|terms", re.IGNORECASE)
_TEXT_SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".pdf")


def is_evidence(path: str) -> bool:
    """Whether the file ``path`` of a source is a licence, a notice, a policy or the model card."""
    name = PurePosixPath(path)
    return name.suffix.lower() in _TEXT_SUFFIXES and bool(_EVIDENCE.search(name.name))
