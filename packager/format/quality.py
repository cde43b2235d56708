"""What quantizing cost: a variant's answers on a text, measured beside the original's.

As integers, since the index is canonical JSON: logarithms in micronats or nanonats (millionths
and thousand-millionths of a nat), shares in millionths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

MICRONATS = 1_000_000
NANONATS = 1_000_000_000
MILLIONTHS = 1_000_000

MAX_TOKENS = 1 << 24
_MOST_LOSS = 700 * MICRONATS  # e to the 710th is beyond a double
_MOST_DIVERGENCE = 1000 * NANONATS
# Of a normal distribution, 95% lies within as many standard errors of the mean.
_CONFIDENCE = 1.96


@dataclass(frozen=True)
class Quality:
    """A variant beside the original on ``tokens`` tokens of a text.

    ``baseline`` is the type of file that stood for the original, ``text`` the digest of the text.
    ``loss`` and ``original_loss`` are mean micronats a token, and ``loss_error`` the standard
    error of their difference. ``divergence`` is the mean Kullback-Leibler divergence from the
    original's distribution over the whole vocabulary and ``divergence_error`` its standard
    error, in nanonats. ``agreement`` is in how many millionths of the places the likeliest token
    is the same.
    """

    text: Digest
    baseline: str
    tokens: int
    loss: int
    original_loss: int
    loss_error: int
    divergence: int
    divergence_error: int
    agreement: int

    @property
    def perplexity(self) -> float:
        """e to the mean loss of a token."""
        return math.exp(self.loss / MICRONATS)

    @property
    def original_perplexity(self) -> float:
        """That of the original on the same tokens."""
        return math.exp(self.original_loss / MICRONATS)

    @property
    def increase(self) -> float:
        """By what share the perplexity is higher than the original's; negative if lower."""
        return math.expm1((self.loss - self.original_loss) / MICRONATS)

    @property
    def increase_margin(self) -> float:
        """Half the width of the 95% confidence interval of :attr:`increase`."""
        return (1 + self.increase) * math.expm1(_CONFIDENCE * self.loss_error / MICRONATS)

    @property
    def divergence_margin(self) -> float:
        """Half the width of the 95% confidence interval of the mean divergence, in nats."""
        return _CONFIDENCE * self.divergence_error / NANONATS

    @property
    def line(self) -> str:
        """The figures in a line, for people."""
        return (
            # Rounded first, and 0 added: a hair below the original is not -0.0%.
            f"perplexity {self.perplexity:.2f}, {round(self.increase, 3) + 0.0:+.1%} "
            f"± {self.increase_margin:.1%} against the original; divergence "
            f"{self.divergence / NANONATS:.4f} ± {self.divergence_margin:.4f} nats a token; the "
            f"same likeliest token in {self.agreement / MILLIONTHS:.1%} of {self.tokens} places"
        )

    def encode(self) -> Json:
        """As a JSON object; :meth:`parse` reads it."""
        return {
            "text": self.text.hex,
            "baseline": self.baseline,
            "tokens": self.tokens,
            "loss": self.loss,
            "original_loss": self.original_loss,
            "loss_error": self.loss_error,
            "divergence": self.divergence,
            "divergence_error": self.divergence_error,
            "agreement": self.agreement,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Quality:
        """Read what :meth:`encode` gave; raises the error of ``fields`` for anything else."""
        fields.only(
            "text", "baseline", "tokens", "loss", "original_loss", "loss_error",
            "divergence", "divergence_error", "agreement",
        )  # fmt: skip
        return cls(
            text=fields.digest("text"),
            baseline=fields.line("baseline"),
            tokens=fields.integer("tokens", least=1, most=MAX_TOKENS),
            loss=fields.integer("loss", least=0, most=_MOST_LOSS),
            original_loss=fields.integer("original_loss", least=0, most=_MOST_LOSS),
            loss_error=fields.integer("loss_error", least=0, most=_MOST_LOSS),
            divergence=fields.integer("divergence", least=0, most=_MOST_DIVERGENCE),
            divergence_error=fields.integer("divergence_error", least=0, most=_MOST_DIVERGENCE),
            agreement=fields.integer("agreement", least=0, most=MILLIONTHS),
        )
