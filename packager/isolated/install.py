"""``airpack install``: the far half of the trip, from media to a model that answers.

    receipt <- activate <- smoke test <- stage <- verify <- trust <- media

Whatever stops it, the generation that was current stays current, and nothing of the new one
is visible; what was read and checked by then stays aside, and the next install goes on there.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from packager.errors import AirpackError, IntegrityError, SmokeTestError, UsageError
from packager.format.bundle import Bundle
from packager.format.sizes import format_size
from packager.format.variant import Variant
from packager.isolated.adapters import engine_files, with_bases
from packager.isolated.content import check_variants
from packager.isolated.evidence import write_evidence
from packager.isolated.held import check_held
from packager.isolated.host_key import find_host_key
from packager.isolated.lifecycle import finish_interrupted
from packager.isolated.media import Media
from packager.isolated.model_signing import place_model_signatures
from packager.isolated.patch import open_patch
from packager.isolated.preflight import find_misfits, refuse_misfits
from packager.isolated.receipts import make_receipt, record_install, record_refusal, write_receipt
from packager.isolated.request import Decided, Installation, InstallRequest
from packager.isolated.stage import stage_files
from packager.isolated.trust_store import (
    read_keyring,
    read_newest,
    read_sequences,
    reckoned_now,
    write_newest,
    write_sequences,
)
from packager.isolated.verify import authenticate, find_strangers
from packager.progress import Progress
from packager.runtime.engine import network_use
from packager.runtime.smoke import SmokeResult, smoke_test
from packager.store.atomic import make_directory
from packager.store.blobs import link_blob
from packager.store.generations import next_number, publish, staging
from packager.store.home import Home
from packager.store.partials import partial_room, remove_partials, taking_back
from packager.trust.clock import newer
from packager.trust.verify import VerifiedBundle, require_signers


def install(request: InstallRequest, progress: Progress) -> Installation:
    """Install the bundle on the media as the new current generation of its model.

    Raises an ``AirpackError`` of the class of what was wrong; then nothing has changed but the
    log, which says so, and what the next install of the bundle need not read again.
    """
    try:
        return _install(request, progress)
    except AirpackError as error:
        record_refusal(request, error)
        raise


def _install(request: InstallRequest, progress: Progress) -> Installation:
    now = reckoned_now(request.home, request.now)
    verified = authenticate(request.media, request.keyring, now=now)
    _refuse_strangers(verified, request.media)
    patches = [open_patch(place, verified, request.keyring, now=now) for place in request.patches]
    variants = choose_variants(verified.bundle, request.variant)
    home, bundle = request.home, verified.bundle
    decided = Decided(
        verified, variants, find_misfits(bundle, variants, home, now=now), find_host_key(home)
    )
    if not request.force:
        refuse_misfits(decided.misfits)
    for misfit in decided.misfits:
        progress.note(f"installing in spite of it: {misfit.what}: {misfit.found}")
    with home.changing():
        _judge_again(verified, home, now)
        finish_interrupted(home, now=request.now, operator=request.operator)
        if not request.allow_downgrade:
            read_sequences(home).check(verified)
        check_held(bundle, [f for v in variants for f in bundle.held_files(v)], home, progress)
        files = [f for v in variants for f in bundle.carried_files(v)]
        digests = [file.digest for file in files]
        with (
            _saying_what_stays(home, bundle.name, progress),
            taking_back(home, bundle.name, digests),
        ):
            stage_files(verified, files, request.media, home, progress, patches)
            check_variants(bundle, variants, home)
            return _activate(request, decided, progress)


def _judge_again(verified: VerifiedBundle, home: Home, now: datetime) -> None:
    """Judge the signatures by the keyring as it is now, which nobody else changes any more.

    A key may have been revoked while a person looked for the next medium.
    """
    ring = read_keyring(home).with_run_keys(signer.key for signer in verified.signers)
    require_signers(verified.evidence, ring, now=now)


@contextmanager
def _saying_what_stays(home: Home, name: str, progress: Progress) -> Iterator[None]:
    """If the block fails, say what is left for the next try, and how to be rid of it."""
    try:
        yield
    except BaseException as error:
        if room := partial_room(home, name):
            words = (
                f"the next install goes on from the {format_size(room)} that are here; "
                "airpack gc frees them"
            )
            if isinstance(error, AirpackError):
                error.hint = f"{error.hint}; {words}" if error.hint else words
            else:
                progress.note(words)
        raise


def _activate(request: InstallRequest, decided: Decided, progress: Progress) -> Installation:
    """Prepare the generation out of sight, test it there, and make it current."""
    home, verified, variants = request.home, decided.verified, decided.variants
    bundle, name = verified.bundle, verified.bundle.name
    number = next_number(home, name)
    with staging(home, name) as staged:
        _link_variants(bundle, variants, home, staged)
        place_model_signatures(verified, variants, request.media, staged, progress)
        results = _test_variants(bundle, variants, staged, progress) if request.smoke else ()
        receipt = make_receipt(request, decided, results, number)
        write_evidence(verified, staged)
        write_receipt(receipt, staged, decided.host_key)
        remove_partials(home, name)
        # Last of all, so that a generation which is there was marked and logged.
        with _raising_mark(home, verified):
            record_install(request, decided, receipt)
            path = publish(home, name, number, staged)
    return Installation(receipt, path, results)


@contextmanager
def _raising_mark(home: Home, verified: VerifiedBundle) -> Iterator[None]:
    """Raise the marks of the bundle's sequence and time, and lower them if the block fails."""
    before, newest = read_sequences(home), read_newest(home)
    write_sequences(home, before.raised(verified))
    try:
        write_newest(home, newer(newest, verified))
        yield
    except BaseException:
        with suppress(AirpackError):  # too high a mark is safe; the first error is what counts
            write_newest(home, newest)
            write_sequences(home, before)
        raise


def _refuse_strangers(verified: VerifiedBundle, media: Media) -> None:
    found = find_strangers(media, verified.sums, verified.bundle, verified.signers)
    stranger = next(iter(found), None)
    if stranger is not None:
        raise IntegrityError(
            f"{stranger}: not part of the signed bundle",
            hint=f"find out who put it there; then remove it: rm -- {shlex.quote(str(stranger))}",
        )


def choose_variants(bundle: Bundle, name: str | None) -> tuple[Variant, ...]:
    """Every variant, or the one called ``name`` and what it needs; raises ``UsageError``."""
    if name is None:
        return bundle.variants
    chosen = tuple(variant for variant in bundle.variants if variant.name == name)
    if not chosen:
        names = ", ".join(variant.name for variant in bundle.variants)
        raise UsageError(f"{bundle.title} has no variant {name!r}; it has {names}")
    return with_bases(bundle, chosen)


def _link_variants(bundle: Bundle, variants: tuple[Variant, ...], home: Home, staged: Path) -> None:
    for variant in variants:
        for file in bundle.variant_files(variant):
            path = staged / file.path.removeprefix(f"models/{bundle.name}/")
            make_directory(path.parent)
            link_blob(home, file.digest, path)


def _test_variants(
    bundle: Bundle, variants: tuple[Variant, ...], staged: Path, progress: Progress
) -> tuple[SmokeResult, ...]:
    """Let each variant that has golden outputs answer; the first that fails ends it."""
    results = []
    for variant in variants:
        if variant.model is None or variant.golden is None:
            progress.note(f"{variant.name}: carried as it is; no engine here runs it, not tested")
            continue
        files = engine_files(bundle, variant, staged)
        result = smoke_test(
            files.model,
            variant.golden,
            variant=variant.name,
            adapter=files.adapter,
            progress=progress,
        )
        if result.egress.attempts:
            raise network_use(result.egress.attempts)
        if not result.ok:
            raise SmokeTestError(
                f"{variant.name}: does not answer as it did at the build",
                hint="the current generation is unchanged; airpack verify BUNDLE checks the medium",
            )
        results.append(result)
    return tuple(results)
