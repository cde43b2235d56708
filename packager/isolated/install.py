"""``airpack install``: the far half of the trip, from media to a model that answers.

    receipt <- activate <- smoke test <- stage <- verify <- trust <- media

Whatever stops it, the generation that was current stays current, and nothing of the new one
is visible; what was read and checked by then stays aside, and the next install goes on there.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager import __version__
from packager.errors import AirpackError, IntegrityError, SmokeTestError, UsageError
from packager.format.bundle import INDEX_NAME, Bundle
from packager.format.canonical import Json
from packager.format.receipt import RECEIPT_NAME, Receipt, SmokeRecord, encode_receipt
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME, signature_name
from packager.format.timestamps import format_timestamp
from packager.format.variant import Variant
from packager.isolated.adapters import engine_files, with_bases
from packager.isolated.held import check_held
from packager.isolated.media import Media
from packager.isolated.patch import open_patch
from packager.isolated.stage import stage_files
from packager.isolated.trust_store import read_sequences, write_sequences
from packager.isolated.verify import authenticate, find_strangers
from packager.progress import Progress
from packager.runtime.smoke import SmokeResult, smoke_test
from packager.store.atomic import make_directory, write_file
from packager.store.blobs import link_blob
from packager.store.generations import next_number, publish, staging, sweep_leftovers
from packager.store.home import Home
from packager.store.journal import append_event
from packager.store.partials import partial_room, remove_partials, taking_back
from packager.trust.keyring import Keyring
from packager.trust.verify import VerifiedBundle

_MAX_MESSAGE = 2000  # characters of an error that the log keeps


@dataclass(frozen=True)
class InstallRequest:
    """What a person asked for, and the moment they asked. ``patches`` are their directories."""

    media: Media
    home: Home
    keyring: Keyring
    variant: str | None
    smoke: bool
    allow_downgrade: bool
    operator: str
    now: datetime
    patches: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Installation:
    """What came of it."""

    receipt: Receipt
    path: Path
    smoke: tuple[SmokeResult, ...]


def install(request: InstallRequest, progress: Progress) -> Installation:
    """Install the bundle on the media as the new current generation of its model.

    Raises an ``AirpackError`` of the class of what was wrong; then nothing has changed but the
    log, which says so, and what the next install of the bundle need not read again.
    """
    try:
        return _install(request, progress)
    except AirpackError as error:
        _record_refusal(request, error)
        raise


def _install(request: InstallRequest, progress: Progress) -> Installation:
    verified = authenticate(request.media, request.keyring, now=request.now)
    _refuse_strangers(verified, request.media)
    patches = [
        open_patch(place, verified, request.keyring, now=request.now) for place in request.patches
    ]
    variants = _choose_variants(verified.bundle, request.variant)
    home, bundle = request.home, verified.bundle
    with home.changing():
        sweep_leftovers(home)
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
            return _activate(request, verified, variants, progress)


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


def _activate(
    request: InstallRequest,
    verified: VerifiedBundle,
    variants: tuple[Variant, ...],
    progress: Progress,
) -> Installation:
    """Prepare the generation out of sight, test it there, and make it current."""
    home, name = request.home, verified.bundle.name
    number = next_number(home, name)
    with staging(home, name) as staged:
        _link_variants(verified.bundle, variants, home, staged)
        bundle = verified.bundle
        results = _test_variants(bundle, variants, staged, progress) if request.smoke else ()
        receipt = _receipt(request, verified, variants, results, number)
        _write_evidence(verified, receipt, staged)
        remove_partials(home, name)
        # Last of all, so that a generation which is there was marked and logged.
        with _raising_mark(home, verified):
            _record(request, receipt)
            path = publish(home, name, number, staged)
    return Installation(receipt, path, results)


@contextmanager
def _raising_mark(home: Home, verified: VerifiedBundle) -> Iterator[None]:
    """Raise the mark of the bundle's sequence, and lower it again if the block fails."""
    before = read_sequences(home)
    write_sequences(home, before.raised(verified))
    try:
        yield
    except BaseException:
        with suppress(AirpackError):  # too high a mark is safe; the first error is what counts
            write_sequences(home, before)
        raise


def _refuse_strangers(verified: VerifiedBundle, media: Media) -> None:
    stranger = next(iter(find_strangers(media, verified.sums)), None)
    if stranger is not None:
        raise IntegrityError(
            f"{stranger}: not part of the signed bundle",
            hint=f"find out who put it there; then remove it: rm -- {shlex.quote(str(stranger))}",
        )


def _choose_variants(bundle: Bundle, name: str | None) -> tuple[Variant, ...]:
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
        if not result.ok:
            raise SmokeTestError(
                f"{variant.name}: does not answer as it did at the build",
                hint="the current generation is unchanged; airpack verify BUNDLE checks the medium",
            )
        results.append(result)
    return tuple(results)


def _receipt(
    request: InstallRequest,
    verified: VerifiedBundle,
    variants: tuple[Variant, ...],
    results: tuple[SmokeResult, ...],
    number: int,
) -> Receipt:
    bundle = verified.bundle
    return Receipt(
        name=bundle.name,
        version=bundle.version,
        sequence=bundle.sequence,
        generation=number,
        bundle=verified.digest,
        signers=tuple(signer.key_id for signer in verified.signers),
        variants=tuple(variant.name for variant in variants),
        installed=format_timestamp(request.now),
        operator=request.operator,
        media=request.media.labels,
        airpack=__version__,
        smoke=tuple(_smoke_record(result) for result in results),
    )


def _smoke_record(result: SmokeResult) -> SmokeRecord:
    return SmokeRecord(
        variant=result.variant,
        ok=result.ok,
        tokens_match=result.tokens_match,
        namespace=result.egress.namespace,
        millitokens_per_second=round(result.tokens_per_second * 1000),
    )


def _write_evidence(verified: VerifiedBundle, receipt: Receipt, staged: Path) -> None:
    evidence = verified.evidence
    write_file(staged / INDEX_NAME, evidence.index)
    write_file(staged / SUMS_NAME, evidence.sums)
    for signer in verified.signers:
        signature = evidence.signatures[signer.key_id]
        write_file(staged / signature_name(signer.key_id), signature)
    write_file(staged / RECEIPT_NAME, encode_receipt(receipt))


def _record(request: InstallRequest, receipt: Receipt) -> None:
    append_event(
        request.home.log,
        "install",
        {
            "name": receipt.name,
            "version": receipt.version,
            "sequence": receipt.sequence,
            "generation": receipt.generation,
            "bundle": receipt.bundle.hex,
            "signers": list(receipt.signers),
            "variants": list(receipt.variants),
            "operator": receipt.operator,
            "media": list(receipt.media),
            "smoke": "passed" if receipt.smoke else "not run",
            "downgrade_allowed": request.allow_downgrade,
        },
        now=request.now,
    )


def _record_refusal(request: InstallRequest, error: AirpackError) -> None:
    """Put the refusal into the log, if that can be: the error itself is what counts."""
    message = error.message.encode("utf-8", "backslashreplace").decode("utf-8")
    details: dict[str, Json] = {
        "error": message[:_MAX_MESSAGE],
        "exit_code": error.exit_code,
        "operator": request.operator,
        "media": list(request.media.labels),
    }
    with suppress(AirpackError), request.home.changing():
        append_event(request.home.log, "refuse", details, now=request.now)
