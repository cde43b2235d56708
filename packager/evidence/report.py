"""``report.html``: what is known of a bundle, for people who decide on it and sign for it.

One page that needs nothing but a browser, or a printer. It claims nothing of its own: each figure
is of the signed index, the lock or the provenance, and what was not measured says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packager.evidence import variant_sections
from packager.evidence.commands import FINGERPRINT_COMMAND, SUMS_COMMAND, signature_command
from packager.evidence.markup import (
    Markup,
    code,
    element,
    facts,
    page,
    preformatted,
    table,
    together,
)
from packager.format.bundle import INDEX_NAME, LOCK_NAME, Bundle
from packager.format.custody import Carried, custody_sheet
from packager.format.digest import Digest
from packager.format.lock import HubCommit, Lock, LockedAdapter
from packager.format.sizes import format_size
from packager.format.statement import PROVENANCE_NAME, SBOM_NAME, Acceptance, Account
from packager.format.sums import SUMS_NAME
from packager.format.volumes import ParityVolume, Volume
from packager.trust.keys import PublicKey

REPORTED = (INDEX_NAME, LOCK_NAME, SBOM_NAME, PROVENANCE_NAME)
"""The documents beside the payload whose digests a report has."""


@dataclass(frozen=True)
class ReportedKey:
    """A key that signed, as far as whoever writes the report knows it: by its id at least.

    ``name`` is what the host that verified calls it.
    """

    key_id: str
    key: PublicKey | None = None
    name: str | None = None


@dataclass(frozen=True)
class Standing:
    """Whether the signatures were checked, in a word and in a sentence."""

    word: str
    sentence: str


WITHIN = Standing(
    "PART OF THE BUNDLE",
    f"This page was written with the bundle that it describes, and {SUMS_NAME} lists it. It says "
    "nothing of whether the signatures hold: check them first, as below.",
)
UNVERIFIED = Standing(
    "NOT VERIFIED",
    "This is what the bundle says of itself. No signature was checked: the host that wrote this "
    "page trusts no key.",
)


def verified(threshold: int, when: str) -> Standing:
    """That of a bundle whose signatures held: at least ``threshold``, by a clock that said so."""
    return Standing(
        "SIGNATURES VERIFIED",
        f"At {when}, by the clock of the host that wrote this page, the signatures of the keys "
        f"below held, which that host trusts; it requires {threshold}. All digests below are those "
        "that they signed for. The volumes were not read for this page: airpack verify does that.",
    )


@dataclass(frozen=True)
class Reported:
    """All that a report speaks of.

    ``sums`` is the digest of ``SHA256SUMS``, if there is one yet; ``documents`` are those beside
    the payload, with theirs. ``account`` and ``lock`` are ``None`` where they could not be read.
    ``media`` are the ways to put the bundle on sticks, in words. ``custody`` is the sheet for the
    media that carry it; ``None`` gives one to be filled in by hand.
    """

    bundle: Bundle
    standing: Standing
    signers: tuple[ReportedKey, ...]
    sums: Digest | None
    documents: Mapping[str, Digest]
    account: Account | None
    lock: Lock | None
    media: tuple[str, ...]
    custody: str | None = None


def make_report(reported: Reported) -> bytes:
    """The page; the same values give the same bytes."""
    bundle, account = reported.bundle, reported.account
    return page(
        f"{bundle.title}: report",
        [
            *_beginning(reported),
            *_signatures(reported),
            *_origin(reported),
            *variant_sections.variants(bundle, account),
            *variant_sections.answers(bundle),
            *variant_sections.templates(bundle, account),
            *_media(reported),
            *_targets(bundle),
            *_files(reported),
            *_custody(reported),
        ],
    )


def _beginning(reported: Reported) -> Iterator[Markup]:
    bundle, standing = reported.bundle, reported.standing
    yield element("h1", bundle.title)
    yield element(
        "p", "An open AI model, packed by airpack to be carried to hosts off the network."
    )
    said = element("p", element("b", standing.word), ". ", standing.sentence)
    yield element("div", said, kind="standing")
    yield facts(_identity(reported))


def _identity(reported: Reported) -> Iterator[tuple[str, str]]:
    bundle = reported.bundle
    yield "name, version", f"{bundle.name}, {bundle.version}"
    yield "sequence", f"{bundle.sequence} (a release with a lower one is older)"
    yield "made", bundle.created
    yield "expires", bundle.expires or "never"
    yield "made by", f"airpack {bundle.airpack}"
    yield "engine", bundle.engine
    if bundle.base:
        yield "a delta", f"made against the inventory with the digest {bundle.base.hex}"
        yield "not in it", _left_out(bundle)
    yield f"sha256 of {SUMS_NAME}", _sums_words(reported)


def _left_out(bundle: Bundle) -> str:
    files = f"{len(bundle.held)} files, {format_size(sum(f.size for f in bundle.held))}"
    setup = bundle.set_up_with
    return f"{files}; and airpack itself, which came with {setup.bundle}" if setup else files


def _sums_words(reported: Reported) -> str:
    if reported.sums:
        return code(reported.sums.hex)
    return f"not known here, since it lists this page: sha256sum {SUMS_NAME}"


def _signatures(reported: Reported) -> Iterator[Markup]:
    yield element("h2", "Who signed, and how to check it")
    needed = reported.bundle.signers
    yield element("p", f"The release needs {needed} of these.")
    if reported.signers:
        yield table(("key", "kind", "fingerprint"), map(_signer, reported.signers), kind="keys")
    else:
        yield element("p", f"No key signed when this was written; see the files {SUMS_NAME}.*.sig.")
    yield element(
        "p",
        "KEY.pub is the sender's public key. It must have come another way than on this medium. "
        "Its fingerprint, and the checks, with what any host has:",
    )
    checks = [_check(signer) for signer in reported.signers] or [signature_command()]
    yield preformatted("\n".join([FINGERPRINT_COMMAND, *checks, SUMS_COMMAND]))


def _signer(signer: ReportedKey) -> tuple[str, ...]:
    key = signer.key
    fingerprint = preformatted(key.spoken_fingerprint) if key else "not known here"
    kind = key.algorithm if key else "not known here"
    name = [Markup("<br>"), signer.name] if signer.name else []
    return element("div", code(signer.key_id), *name), kind, fingerprint


def _check(signer: ReportedKey) -> str:
    if signer.key is None:
        return signature_command(signer.key_id)
    return signature_command(signer.key_id, signer.key.algorithm)


def _origin(reported: Reported) -> Iterator[Markup]:
    origin, lock, account = reported.bundle.origin, reported.lock, reported.account
    yield element("h2", "Where it comes from, and its licence")
    yield facts(
        [
            ("source", f"{origin.repository} ({origin.kind})"),
            ("revision", code(origin.revision)),
            ("licence", origin.licence or "not stated by the source"),
            ("gated", _gated(lock)),
            ("keys left out", ", ".join(origin.stripped) or "nothing"),
        ]
    )
    if lock and lock.adapters:
        yield element("h3", "Adapters")
        yield table(("variant", "source", "licence"), map(_adapter, lock.adapters))
    yield element("h3", "Licences accepted")
    if account is None:
        yield element("p", f"Not known: there is no {PROVENANCE_NAME} to read it from.")
    elif account.acceptances:
        yield table(
            ("by", "when", "source", "licence", "gated"), map(_accepted, account.acceptances)
        )
    else:
        yield element("p", "Nobody is recorded to have accepted a licence.")


def _gated(lock: Lock | None) -> str:
    if lock is None:
        return "not known"
    return "yes: the hub asks for acceptance" if lock.gated else "no"


def _adapter(adapter: LockedAdapter) -> tuple[str, ...]:
    source = adapter.source
    if isinstance(source, HubCommit):
        return adapter.variant, f"{source.repository} at {source.revision}", _licence(adapter)
    return adapter.variant, source.path, _licence(adapter)


def _licence(adapter: LockedAdapter) -> str:
    return adapter.licence or "not stated"


def _accepted(acceptance: Acceptance) -> tuple[str, ...]:
    return (
        acceptance.by,
        acceptance.when,
        acceptance.source,
        acceptance.licence or "not stated",
        "yes" if acceptance.gated else "no",
    )


def _media(reported: Reported) -> Iterator[Markup]:
    bundle = reported.bundle
    yield element("h2", "On the media")
    yield facts(
        [
            ("payload", f"{format_size(bundle.payload.size)} ({bundle.payload.size} bytes)"),
            ("volumes", _volumes(bundle.volumes)),
            ("parity", _volumes(bundle.parity) if bundle.parity else "none"),
            ("chunks", f"{len(bundle.payload.chunks)} of {format_size(bundle.payload.chunk_size)}"),
            ("fits on", ", or ".join(reported.media) or "not worked out"),
        ]
    )
    if bundle.parity:
        yield element("p", "So many volumes as are of parity can be lost or damaged, and rebuilt.")


def _volumes(volumes: tuple[Volume, ...] | tuple[ParityVolume, ...]) -> str:
    """All but the last have one size."""
    first, last = volumes[0], volumes[-1]
    if len(volumes) == 1:
        return f"{first.name}, {_size(first.size)}"
    if first.size == last.size:
        return f"{len(volumes)}, {first.name} to {last.name}, {_size(first.size)} each"
    return (
        f"{len(volumes)}, {first.name} to {last.name}, {_size(first.size)} each, the last "
        f"{_size(last.size)}"
    )


def _size(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _targets(bundle: Bundle) -> Iterator[Markup]:
    yield element("h2", "Hosts it is made for")
    if not bundle.targets:
        yield element("p", "None are named.")
        return
    rows = [(t.platform, ", ".join(t.python), t.glibc) for t in bundle.targets]
    yield table(("platform", "Python", "glibc, at least"), rows)


def _files(reported: Reported) -> Iterator[Markup]:
    bundle = reported.bundle
    yield element("h2", "Every file, and its sha256")
    yield element("h3", "In the payload")
    yield table(
        ("path", "bytes", "sha256"),
        ((f.path, str(f.size), code(f.digest.hex)) for f in bundle.files),
        kind="files",
    )
    if bundle.held:
        yield element("h3", "Not in it, since the host holds it")
        yield table(
            ("path", "bytes", "sha256", "came with"),
            ((f.path, str(f.size), code(f.digest.hex), f.bundle) for f in bundle.held),
            kind="files",
        )
    yield element("h3", "Beside the payload")
    yield table(
        ("file", "sha256"),
        ((name, code(digest.hex)) for name, digest in sorted(reported.documents.items())),
        kind="beside",
    )
    yield element("p", f"{SUMS_NAME} has the digest of every other file on the medium.")


def _custody(reported: Reported) -> Iterator[Markup]:
    sheet = reported.custody
    if sheet is None:
        signers = tuple(signer.key_id for signer in reported.signers)
        sheet = custody_sheet(Carried.of(reported.bundle, reported.sums, signers), (), None)
    yield element("div", together([preformatted(sheet)]), kind="sheet")
