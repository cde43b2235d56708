"""A bundle factory: real signed bundles of a few kilobytes, made without the package index."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager import __version__
from packager.connected.packing.layout import Member, plan_payload
from packager.connected.packing.pack import write_payload
from packager.connected.packing.parity import write_parity
from packager.connected.packing.spares import write_spares
from packager.connected.signing.keys import SigningKey, generate_key, open_key
from packager.connected.signing.sign import sign_bundle
from packager.format.adapter import AdapterBase
from packager.format.bundle import INDEX_NAME, Bundle, Origin, encode_bundle
from packager.format.digest import Digest
from packager.format.golden import Golden
from packager.format.held import SETUP_DIRECTORY, HeldFile, Setup
from packager.format.memory import MemoryNeed
from packager.format.model_signature import MODEL_SIGNATURE
from packager.format.sums import SUMS_NAME, encode_sums, signature_name, spare_name
from packager.format.target import Target
from packager.format.variant import Variant, variant_directory
from packager.progress import Silent
from packager.store.digests import file_digest
from packager.trust.keyring import Keyring, TrustedKey
from support.tiny_source import weights

CHUNK_SIZE = 1 << 16
ORIGINAL = "original"
DEFAULT_FILES: Mapping[str, bytes] = {
    "model.safetensors": weights(bytes(range(256)) * 1024),  # four chunks and more
    "config.json": b"{}\n",
}
DEFAULT_TARGETS = (Target("linux_x86_64", ("3.11",), "2.28"),)


@dataclass(frozen=True)
class EngineVariant:
    """A variant that the engine opens: its name, its GGUF file, how it must answer.

    An adapter has ``base``, the name of the variant that it changes, which comes before it.
    ``memory`` is what the index says that the engine takes.
    """

    name: str
    model: Path
    golden: Golden
    base: str | None = None
    memory: MemoryNeed | None = None


def make_key(path: Path, algorithm: str = "p256") -> SigningKey:
    """A new key pair at ``path`` and ``path``.pub, opened."""
    generate_key(path, algorithm, None)
    return open_key(path, None)


def keyring_of(*keys: SigningKey, threshold: int = 1) -> Keyring:
    """A keyring that trusts ``keys``."""
    ring = Keyring()
    for number, key in enumerate(keys):
        ring = ring.with_key(TrustedKey(f"signer {number}", key.public))
    return ring.with_threshold(threshold)


def make_bundle(
    output: Path,
    keys: Sequence[SigningKey],
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    sequence: int = 1,
    expires: str | None = None,
    signers: int = 1,
    files: Mapping[str, bytes] = DEFAULT_FILES,
    engine_variants: Sequence[EngineVariant] = (),
    volume_size: int | None = None,
    parity: int = 0,
    extra: Mapping[str, bytes] | None = None,
    held: Mapping[str, str] | None = None,
    setup: Mapping[str, bytes] | None = None,
    set_up_with: Setup | None = None,
    airpack: str = __version__,
    targets: Sequence[Target] = DEFAULT_TARGETS,
) -> Path:
    """Write ``output``/<name>-<version>/, signed by ``keys``, and return it.

    ``files`` become the variant ``original``, which no engine opens (none, if empty);
    ``extra`` are further small files beside the index. ``held`` makes it a delta: the names of
    files that are left out, each with the title of the bundle that carried it. ``setup`` are the
    payload's files below ``setup/``, by name; in a delta ``set_up_with`` may stand for some.
    """
    directory = output / f"{name}-{version}"
    directory.mkdir(parents=True)
    scratch = output / f".{name}-{version}.scratch"
    scratch.mkdir()
    members = [
        _written(f"{SETUP_DIRECTORY}/{path}", d, scratch) for path, d in (setup or {}).items()
    ]
    variants, originals = _original(name, files, scratch)
    members += originals
    for made in engine_variants:
        place = variant_directory(name, made.name)
        members.append(_member(f"{place}/{made.model.name}", made.model))
        variants.append(_engine_variant(made, place, engine_variants))
    left_out = {m.path: m for m in members if Path(m.path).name in (held or {})}
    members = [member for member in members if member.path not in left_out]
    plan = plan_payload(members, volume_size, parity)
    packed = write_payload(plan, directory, Silent())
    sums = write_parity(plan, packed.payload, directory, Silent())
    index = Bundle(
        name=name,
        version=version,
        sequence=sequence,
        created="2026-11-24T00:00:00Z",
        expires=expires,
        signers=signers,
        airpack=airpack,
        engine="xllamacpp 1",
        origin=Origin("folder", "tiny", "0" * 64, "apache-2.0"),
        lock=Digest.of(b"lock"),
        payload=packed.payload,
        volumes=plan.volumes,
        parity=sums.volumes,
        files=plan.files,
        variants=tuple(variants),
        targets=tuple(targets),
        held=tuple(
            HeldFile(m.path, m.size, m.digest, (held or {})[Path(m.path).name])
            for m in left_out.values()
        ),
        base=Digest.of(b"inventory") if left_out or set_up_with else None,
        set_up_with=set_up_with,
    )
    (directory / INDEX_NAME).write_bytes(encode_bundle(index))
    write_spares(directory, [INDEX_NAME])
    for small, data in (extra or {}).items():
        (directory / small).write_bytes(data)
    _write_sums(directory)
    for key in keys:
        sign_bundle(directory, key)
    return directory


def _engine_variant(made: EngineVariant, place: str, others: Sequence[EngineVariant]) -> Variant:
    if made.base is None:
        return Variant(
            made.name, "gguf", "Q4_K_M", place, made.model.name, made.golden, memory=made.memory
        )
    model = next(other.model for other in others if other.name == made.base)
    base = AdapterBase(made.base, file_digest(model))
    return Variant(made.name, "lora", "F32", place, made.model.name, made.golden, base=base)


def resign(directory: Path, keys: Sequence[SigningKey]) -> None:
    """Write the sums of what is in ``directory`` now, and sign them: what an insider could do."""
    _write_sums(directory)
    sums = (directory / SUMS_NAME).read_bytes()
    for key in keys:
        name = signature_name(key.public.key_id)
        (directory / name).write_bytes(key.sign(sums))
        write_spares(directory, [name])


def _write_sums(directory: Path) -> None:
    for pattern in (f"{SUMS_NAME}*", f"{spare_name(SUMS_NAME)}*", f"*.{MODEL_SIGNATURE}"):
        for signature in directory.glob(pattern):
            signature.unlink()
    digests = {path.name: file_digest(path) for path in directory.iterdir()}
    (directory / SUMS_NAME).write_bytes(encode_sums(digests))
    write_spares(directory, [SUMS_NAME])


def flip_bit(path: Path, position: int) -> None:
    """Change one bit of the file ``path``, at byte ``position`` (negative: from its end)."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    mode = path.stat().st_mode
    path.chmod(mode | stat.S_IWUSR)  # a disk that loses bits asks for no leave
    path.write_bytes(data)
    path.chmod(mode)


def _original(
    name: str, files: Mapping[str, bytes], scratch: Path
) -> tuple[list[Variant], list[Member]]:
    if not files:
        return [], []
    place = variant_directory(name, ORIGINAL)
    members = [_written(f"{place}/{path}", data, scratch) for path, data in files.items()]
    return [Variant(ORIGINAL, "safetensors", "as published", place, None, None)], members


def _written(path: str, data: bytes, scratch: Path) -> Member:
    source = scratch / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(data)
    return _member(path, source)


def _member(path: str, source: Path) -> Member:
    return Member(path, source, source.stat().st_size, file_digest(source))
