"""What the build says of itself: the SBOM, the provenance and the report, from what it has at hand.

Nothing is read or hashed for it but a few small texts: ``config.json``, the licence texts of the
source, and what each wheel says of its licence.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.utils import parse_wheel_filename

from packager.connected.evidence.licence import licence_texts, limit_of
from packager.connected.inside.templates import first_rendering
from packager.connected.lock import CONFIG, MAX_CONFIG_SIZE
from packager.connected.packing.delta import SetupDelta
from packager.connected.packing.footprint import Footprint
from packager.connected.packing.layout import Member
from packager.connected.provisions.documents import ENGINE_NOTICES, LIBGOMP_LICENCE
from packager.connected.provisions.libgomp import LIBGOMP_NAME
from packager.connected.variants.making import MadeVariant
from packager.connected.workshop import Workshop
from packager.errors import AirpackError
from packager.evidence.materials import Making, Materials, Package, Part
from packager.evidence.provenance import make_provenance
from packager.evidence.report import WITHIN, Reported, ReportedKey, make_report
from packager.evidence.sbom import make_sbom
from packager.evidence.wheel import METADATA, describe_wheel
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.foreign_json import parse_json_object
from packager.format.held import SETUP_DIRECTORY, is_setup_part
from packager.format.lock import Lock
from packager.format.statement import (
    PROVENANCE_NAME,
    REPORT_NAME,
    SBOM_NAME,
    FallbackTensor,
    parse_account,
)
from packager.progress import Progress
from packager.runtime.environment import ENGINE
from packager.store.atomic import naming_refusals, read_capped
from packager.trust.keys import PublicKey

_MAX_METADATA_SIZE = 4 << 20
STATEMENTS = (SBOM_NAME, PROVENANCE_NAME, REPORT_NAME)

_OWN = "airpack"
_LIBGOMP = Package(
    "libgomp", None, "GPL-3.0-or-later WITH GCC-exception-3.1", (LIBGOMP_LICENCE,), None
)


def gather(
    bundle: Bundle,
    workshop: Workshop,
    lock: Lock,
    made: Iterable[MadeVariant],
    parts: tuple[Part, ...],
    command: tuple[str, ...],
    accepted_by: str | None,
) -> Materials:
    """What the documents of ``bundle`` are made from; ``lock`` is the one that travels."""
    config = _read_config(workshop.sources)
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    texts = licence_texts(_read_texts(workshop.sources))
    if not texts:
        workshop.progress.note("no licence text comes with the source, so none travels")
    return Materials(
        bundle=bundle,
        recipe=workshop.recipe,
        lock=lock,
        parts=parts,
        makings={m.variant.name: _making(workshop, m) for m in made},
        texts=texts,
        architecture=_text(first),
        family=_text(config.get("model_type")),
        command=command,
        accepted_by=accepted_by,
    )


def _making(workshop: Workshop, made: MadeVariant) -> Making:
    template = made.variant.template
    return Making(
        matrix=made.matrix,
        fallbacks=tuple(FallbackTensor(*fallback) for fallback in made.fallbacks),
        rendered=first_rendering(workshop, template) if template else None,
    )


def statements(
    materials: Materials, beside: Mapping[str, bytes], keys: Iterable[PublicKey]
) -> dict[str, bytes]:
    """The documents, by name; those ``beside`` are what they speak of, too, and ``keys`` sign."""
    sbom = make_sbom(materials)
    digests = {name: Digest.of(data) for name, data in {**beside, SBOM_NAME: sbom}.items()}
    made = {SBOM_NAME: sbom, PROVENANCE_NAME: make_provenance(materials, digests)}
    return {**made, REPORT_NAME: _report(materials, {**beside, **made}, keys)}


def _report(
    materials: Materials, documents: Mapping[str, bytes], keys: Iterable[PublicKey]
) -> bytes:
    """The report, of what the ``documents`` say: any host can write it again from them."""
    return make_report(
        Reported(
            bundle=materials.bundle,
            standing=WITHIN,
            signers=tuple(ReportedKey(key.key_id, key) for key in keys),
            sums=None,
            documents={name: Digest.of(data) for name, data in documents.items()},
            account=parse_account(documents[PROVENANCE_NAME]),
            lock=materials.lock,
            media=_media(materials.bundle, documents),
        )
    )


def _media(bundle: Bundle, documents: Mapping[str, bytes]) -> tuple[str, ...]:
    """The media that take it. What signatures add, and the report, is far within the margin."""
    volumes = tuple(volume.size for volume in bundle.volume_files)
    setup = (f.size for f in bundle.files if f.path.startswith(f"{SETUP_DIRECTORY}/"))
    small = (*setup, *(2 * len(data) for data in documents.values()))
    return tuple(map(str, Footprint(volumes, len(bundle.parity), small).media()))


def setup_parts(
    members: Sequence[Member], setup: SetupDelta, progress: Progress
) -> tuple[Part, ...]:
    """All that airpack is set up from, what an earlier bundle carried included.

    A wheel without the text of its licence is told.
    """
    parts = tuple(_part(member, setup) for member in members)
    bare = sorted({p.package.name for p in parts if p.package and not p.package.texts})
    if bare:
        progress.note(f"no licence text comes in the wheels of {', '.join(bare)}")
    return parts


def _part(member: Member, setup: SetupDelta) -> Part:
    name = member.path.removeprefix(f"{SETUP_DIRECTORY}/")
    package = _LIBGOMP if name == LIBGOMP_NAME else None
    if name.endswith(".whl"):
        package = _with_notices(_read_wheel(member.source))
    earlier = setup.set_up_with.bundle if setup.set_up_with else None
    return Part(name, member.digest, package, earlier if is_setup_part(member.path) else None)


def _with_notices(package: Package) -> Package:
    """What is known of a wheel and not in it: the engine's further notices, and that our own is
    from no index."""
    if package.name == ENGINE:
        return replace(package, texts=(*package.texts, ENGINE_NOTICES))
    if package.name == _OWN:
        return replace(package, url=f"pkg:generic/{_OWN}@{package.version}")
    return package


def _read_wheel(path: Path) -> Package:
    name, version, _, _ = parse_wheel_filename(path.name)
    try:
        with naming_refusals(path), zipfile.ZipFile(path) as archive:
            files = archive.namelist()
            metadata = next((file for file in files if METADATA.match(file)), None)
            if metadata is None or archive.getinfo(metadata).file_size > _MAX_METADATA_SIZE:
                raise AirpackError(f"{path}: a wheel without metadata")
            return describe_wheel(name, str(version), archive.read(metadata), files)
    except zipfile.BadZipFile:
        raise AirpackError(f"{path}: not a wheel") from None


def _read_config(sources: Mapping[str, Path]) -> Mapping[str, object]:
    if CONFIG not in sources:
        return {}
    return parse_json_object(read_capped(sources[CONFIG].resolve(), MAX_CONFIG_SIZE), what=CONFIG)


def _read_texts(sources: Mapping[str, Path]) -> dict[str, bytes]:
    return {
        name: read_capped(path.resolve(), limit_of(name))
        for name, path in sources.items()
        if path.stat().st_size <= limit_of(name)
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and value else None
