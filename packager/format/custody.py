"""A chain-of-custody sheet for the media that carry a bundle: text, to be printed and signed.

Its fields are those that NIST SP 800-53 rev. 5, control MP-5 (Media Transport), asks for: what
protects the media outside of controlled areas (a), who accounts for them (b), the record of what
was done (c), and who was allowed to (d).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packager.format.bundle import Bundle
from packager.format.digest import Digest

WIDTH = 78
_INDENT = 22
_BLANK = "_" * 40


@dataclass(frozen=True)
class Carried:
    """What the media carry: ``digest`` is that of the signed sums, ``size`` in bytes.

    Before there are sums, it is ``None``, and left for a pen.
    """

    title: str
    sequence: int
    digest: str | None
    created: str
    size: int
    files: int
    signers: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle, digest: Digest | None, signers: tuple[str, ...]) -> Carried:
        """What ``bundle`` carries, with all its volumes."""
        return cls(
            title=bundle.title,
            sequence=bundle.sequence,
            digest=digest.hex if digest else None,
            created=bundle.created,
            size=sum(volume.size for volume in bundle.volume_files),
            files=len(bundle.files),
            signers=signers,
        )


@dataclass(frozen=True)
class CarriedMedium:
    """One medium; what is ``None`` is left for a pen."""

    number: int | None
    label: str | None = None
    serial: str | None = None
    model: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Received:
    """What happened at the far end, if it has: when, by whom, and how it was checked."""

    when: str
    operator: str
    generation: int
    checks: tuple[str, ...]
    receipt: str


def custody_sheet(
    carried: Carried, media: Sequence[CarriedMedium], received: Received | None
) -> str:
    """The sheet, in lines of at most 78 characters but where a name is longer.

    Where no media are known yet, there is room for one: each gets its own sheet.
    """
    lines = [
        "CHAIN OF CUSTODY: MEDIA IN TRANSPORT".center(WIDTH).rstrip(),
        "(fields of NIST SP 800-53 rev. 5, MP-5)".center(WIDTH).rstrip(),
        "",
        "1. WHAT IS CARRIED",
        *_fields(
            ("bundle", f"{carried.title}, sequence {carried.sequence}"),
            ("made", carried.created),
            ("contents", f"{carried.files} files, {carried.size} bytes"),
            ("sha256 of SHA256SUMS", carried.digest),
            ("classification", None),
        ),
        "",
        "2. THE MEDIA",
        *(line for m in media or (CarriedMedium(None),) for line in _medium(m, len(media))),
        "",
        "3. WHAT PROTECTS IT (MP-5 a)",
        *_fields(
            ("signed by", ", ".join(carried.signers) or None),
            ("integrity", "sha256 of every chunk and file, under that signature"),
            ("confidentiality", None),
            ("container, seal no.", None),
        ),
        "",
        "4. WHO IS ACCOUNTABLE, AND WHEN (MP-5 b, c, d)",
        *_handover("released", "by (authorized)"),
        *_handover("carried", "by (courier)"),
        *_received(received),
        "",
        "5. SIGNATURES",
        "",
        *_signature("released by"),
        *_signature("received by"),
    ]
    return "\n".join(lines) + "\n"


def _fields(*fields: tuple[str, str | None]) -> Iterable[str]:
    for name, value in fields:
        yield f"   {name}: ".ljust(_INDENT + 3) + (value or _BLANK)


def _medium(medium: CarriedMedium, count: int) -> Iterable[str]:
    yield f"   medium {medium.number or '____'} of {count or '____'}"
    yield from _fields(
        ("label", medium.label), ("serial number", medium.serial), ("make and model", medium.model)
    )
    if medium.path is not None:
        yield from _fields(("mounted at", medium.path))


def _handover(what: str, by: str) -> Iterable[str]:
    return _fields((f"{what} {by}", None), ("date and time", None), ("place", None))


def _received(received: Received | None) -> Iterable[str]:
    if received is None:
        return _fields(
            ("received by", None), ("date and time", None), ("place", None),
            ("verified, result", None),
        )  # fmt: skip
    checks = [("checked", check) for check in received.checks]
    return _fields(
        ("received by", received.operator),
        ("date and time", f"{received.when} (this host's clock)"),
        ("place", None),
        *checks,
        ("installed as", f"generation {received.generation}"),
        ("sha256 of receipt", received.receipt),
    )


def _signature(who: str) -> Iterable[str]:
    return (f"   {who}: ".ljust(_INDENT + 3) + f"{'_' * 30}  date: {'_' * 14}", "")
