"""The provenance on the media, in the envelopes of those who signed the sums: which of them hold.

As with model signatures: what this host believes rests on the sums, so one that is bad is a fault
of the medium, and one that is gone leaves no trace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from packager.errors import AirpackError
from packager.format.digest import Digest
from packager.format.envelope import MAX_ENVELOPE_SIZE, envelope_name
from packager.format.statement import (
    MAX_PROVENANCE_SIZE,
    PROVENANCE_NAME,
    Acceptance,
    parse_acceptances,
)
from packager.format.sums import spare_name
from packager.isolated.media import Media
from packager.store.atomic import read_capped
from packager.trust.provenance import check_provenance
from packager.trust.verify import Signer, VerifiedBundle


def envelope_names(verified: VerifiedBundle) -> frozenset[str]:
    """The names that the signers' envelopes and their spare copies may have."""
    own = _whose(verified)
    return frozenset((*own, *map(spare_name, own)))


def envelope_digests(verified: VerifiedBundle, seen: Iterable[Path]) -> dict[str, Digest | None]:
    """The digest of each envelope of which ``seen`` has a copy, by the names of both.

    It is that of the first copy that holds, ``None`` where none does.
    """
    paths: dict[str, list[Path]] = defaultdict(list)
    for path in seen:
        paths[path.name].append(path)
    digests: dict[str, Digest | None] = {}
    for name, signer in _whose(verified).items():
        if copies := [*paths.get(name, ()), *paths.get(spare_name(name), ())]:
            holding = _first_that_holds(verified, signer, copies)
            digests |= {name: holding, spare_name(name): holding}
    return digests


def read_acceptances(media: Media) -> tuple[Acceptance, ...]:
    """Who accepted which licences, by the first copy of ``provenance.json`` that can be read.

    By its own word: nothing is verified.
    """
    for path in (*media.copies(PROVENANCE_NAME), *media.copies(spare_name(PROVENANCE_NAME))):
        try:
            return parse_acceptances(read_capped(path, MAX_PROVENANCE_SIZE))
        except AirpackError:
            continue
    return ()


def _whose(verified: VerifiedBundle) -> dict[str, Signer]:
    if PROVENANCE_NAME not in verified.sums:
        return {}
    return {envelope_name(signer.key_id): signer for signer in verified.signers}


def _first_that_holds(
    verified: VerifiedBundle, signer: Signer, paths: Iterable[Path]
) -> Digest | None:
    for path in paths:
        try:
            data = read_capped(path, MAX_ENVELOPE_SIZE)
            check_provenance(data, signer.key, verified.sums[PROVENANCE_NAME], path.name)
        except AirpackError:
            continue
        return Digest.of(data)
    return None
