"""What a variant was measured to be."""

from __future__ import annotations

from packager.format.digest import Digest
from packager.format.quality import Quality

FIGURES = Quality(
    text=Digest.of(b"a text"),
    baseline="BF16",
    tokens=4080,
    loss=3_450_000,
    original_loss=3_400_000,
    loss_error=1_000,
    divergence=50_000_000,
    divergence_error=1_000_000,
    agreement=842_200,
)
