"""Two releases of the embedded model, signed, of a few megabytes, made without an index."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from packager import __version__
from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.spares import write_spares
from packager.connected.signing.keys import SigningKey, generate_key, open_key
from packager.connected.signing.sign import sign_bundle
from packager.format.bundle import INDEX_NAME, Bundle, Origin, encode_bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, encode_sums
from packager.format.target import Target
from packager.format.variant import Variant, variant_directory
from packager.progress import Silent
from packager.quantize.pipeline import quantize
from packager.runtime.smoke import record_golden
from packager.store.digests import file_digest

NAME = "demo"
_TYPES = {"q4_k_m": "Q4_K_M", "q8_0": "Q8_0"}
_RELEASES = (("1.0.0", 1, ["q4_k_m"]), ("2.0.0", 2, ["q4_k_m", "q8_0"]))


@dataclass(frozen=True)
class Keys:
    """The public keys of the one who signs, and of another; the private ones lie beside them."""

    signer: Path
    other: Path


def make_keys(directory: Path) -> Keys:
    """Make two keys in ``directory``."""
    for name in ("team", "other"):
        generate_key(directory / name, "p256", None)
    return Keys(directory / "team.pub", directory / "other.pub")


def make_releases(directory: Path, keys: Keys) -> tuple[Path, Path]:
    """Quantize the embedded model, hear it, and pack both releases below ``directory``."""
    demo = Path(str(files("packager") / "demo/tiny-kjv"))
    sources = {path.name: path for path in demo.iterdir()}
    models = {name: directory / f"{name}.gguf" for name in _TYPES}
    for name, model in models.items():
        quantize(sources, _TYPES[name], model, name=NAME, progress=Silent())
    made = {name: _variant(name, model) for name, model in models.items()}
    signer = open_key(keys.signer.with_suffix(""), None)
    first, second = (
        _pack(directory, signer, version, sequence, [(made[n], models[n]) for n in names])
        for version, sequence, names in _RELEASES
    )
    return first, second


def _variant(name: str, model: Path) -> Variant:
    golden = record_golden(model, prompts=["In the beginning"], max_tokens=8, progress=Silent())
    place = variant_directory(NAME, name)
    return Variant(name, "gguf", _TYPES[name], place, model.name, golden)


def _pack(
    output: Path, key: SigningKey, version: str, sequence: int, models: list[tuple[Variant, Path]]
) -> Path:
    directory = output / f"{NAME}-{version}"
    directory.mkdir()
    members = [
        Member(f"{variant.directory}/{model.name}", model, model.stat().st_size, file_digest(model))
        for variant, model in models
    ]
    plan = plan_payload(members, None, 0)
    packed = write_payload(plan, directory, Silent())
    python = ".".join(str(part) for part in sys.version_info[:2])
    index = Bundle(
        name=NAME,
        version=version,
        sequence=sequence,
        created="2026-01-01T00:00:00Z",
        expires=None,
        signers=1,
        airpack=__version__,
        engine="xllamacpp 1",
        origin=Origin("folder", "tiny-kjv", "0" * 64, "cc0-1.0"),
        lock=Digest.of(b"lock"),
        payload=packed.payload,
        volumes=plan.volumes,
        parity=(),
        files=plan.files,
        variants=tuple(variant for variant, _ in models),
        targets=(Target(f"linux_{platform.machine()}", (python,), "2.17"),),
    )
    (directory / INDEX_NAME).write_bytes(encode_bundle(index))
    write_spares(directory, [INDEX_NAME])
    sums = {path.name: file_digest(path) for path in directory.iterdir()}
    (directory / SUMS_NAME).write_bytes(encode_sums(sums))
    write_spares(directory, [SUMS_NAME])
    sign_bundle(directory, key)
    return directory
