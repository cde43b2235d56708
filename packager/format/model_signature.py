"""OpenSSF Model Signing: the signature of a folder, as the ``model-signing`` package has it.

A file ``model.sig`` is a Sigstore bundle (v0.3, JSON) that holds a DSSE envelope with one
signature; its payload is an in-toto statement (v1) with the predicate
``https://model_signing/signature/v1.0``, which lists every file with its digest. The statement's
subject has the digest of these digests, in their order.

Sources: ``model_signing/_signing/signing.py`` and ``sign_sigstore_pb.py`` of model-signing 1.1.1;
DSSE v1.0.0; in-toto attestation v1; ``sigstore_bundle.proto`` v0.3. What a verifier of the
predicate's v1.0 should ignore, members of other names, is ignored here as well.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from packager.errors import MalformedError, TrustError, UsageError
from packager.format import canonical
from packager.format.bundle import Bundle
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.envelope import IN_TOTO, pre_authentication_encoding
from packager.format.fields import Fields
from packager.format.foreign_json import parse_json_object
from packager.format.relpath import has_unprintable
from packager.format.variant import Variant

MODEL_SIGNATURE = "model.sig"
MAX_MODEL_SIGNATURE_SIZE = 16 << 20  # bytes; a file takes some 200, as base64

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# A bundle by a key has 6 objects and arrays, one by a certificate with its log entries some 20.
_MAX_CONTAINERS = 256


@dataclass(frozen=True)
class ModelSignature:
    """A bundle that was taken apart; nothing of it is believed yet.

    ``key_hint`` is what :func:`key_hint` gives for the key that made it, ``None`` in old ones.
    """

    payload: bytes
    signature: bytes
    key_hint: str | None

    @property
    def signed_bytes(self) -> bytes:
        """What the ``signature`` is over."""
        return pre_authentication_encoding(IN_TOTO, self.payload)


def model_signature_name(variant: str, key_id: str) -> str:
    """What the signature of the key ``key_id`` over the folder of ``variant`` is called."""
    return f"{variant}.{key_id}.{MODEL_SIGNATURE}"


def folder_digests(bundle: Bundle, variant: Variant) -> dict[str, Digest]:
    """The files of the installed ``variant``, by their paths in its folder."""
    start = len(f"{variant.directory}/")
    return {file.path[start:]: file.digest for file in bundle.variant_files(variant)}


def key_hint(spki: bytes) -> str:
    """How a bundle names a key: the digest of its PEM (RFC 7468 s.13), not of its DER."""
    lines = textwrap.wrap(base64.b64encode(spki).decode("ascii"), 64)
    pem = "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""))
    return hashlib.sha256(pem.encode("ascii")).hexdigest()


def encode_statement(name: str, files: Mapping[str, Digest]) -> bytes:
    """The statement that the folder called ``name`` holds ``files``, by their paths in it.

    ``model.sig`` is ignored: it comes to lie in that folder.
    """
    paths = sorted(files, key=lambda path: path.split("/"))
    resources: list[Json] = [
        {"name": path, "algorithm": "sha256", "digest": files[path].hex} for path in paths
    ]
    return canonical.encode(
        {
            "_type": _STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": _root(files[path] for path in paths).hex}}
            ],
            "predicateType": _PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": [MODEL_SIGNATURE],
                },
                "resources": resources,
            },
        }
    )


def encode_model_signature(signed: ModelSignature) -> bytes:
    """Write a bundle; raises ``UsageError`` for one larger than any that is read."""
    data = canonical.encode(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": signed.key_hint},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(signed.payload).decode("ascii"),
                "payloadType": IN_TOTO,
                "signatures": [
                    {"sig": base64.b64encode(signed.signature).decode("ascii"), "keyid": ""}
                ],
            },
        }
    )
    if len(data) > MAX_MODEL_SIGNATURE_SIZE:
        raise UsageError(
            f"{MODEL_SIGNATURE}: {len(data)} bytes, more than the {MAX_MODEL_SIGNATURE_SIZE} that "
            "a host reads: the variant has too many files"
        )
    return data


def parse_model_signature(data: bytes, what: str) -> ModelSignature:
    """Take a bundle called ``what`` apart.

    Raises ``MalformedError`` for anything but one, and ``TrustError`` for one that was not made
    with a key.
    """
    if len(data) > MAX_MODEL_SIGNATURE_SIZE:
        raise MalformedError(f"{what}: {len(data)} bytes, more than {MAX_MODEL_SIGNATURE_SIZE}")
    if data.count(b"{") + data.count(b"[") > _MAX_CONTAINERS:
        raise MalformedError(f"{what}: more than {_MAX_CONTAINERS} objects and arrays")
    fields = Fields.of(parse_json_object(data, what=what), what)
    _require(fields, "mediaType", _MEDIA_TYPE)
    material = fields.mapping("verificationMaterial")
    if not material.has("publicKey"):
        raise TrustError(
            f"{what}: was not made with a key, but with a certificate",
            hint="airpack checks signatures by a key only; model_signing verify checks the others",
        )
    envelope = fields.mapping("dsseEnvelope")
    _require(envelope, "payloadType", IN_TOTO)
    signatures = tuple(envelope.mappings("signatures"))
    if len(signatures) != 1:
        raise envelope.refuse("signatures", f"{len(signatures)} of them; there must be one")
    return ModelSignature(
        envelope.base64("payload"),
        signatures[0].base64("sig"),
        material.mapping("publicKey").optional_text("hint"),
    )


def parse_statement(payload: bytes, what: str) -> Mapping[str, Digest]:
    """The files of the folder that a statement speaks of, by their paths in it.

    Raises ``MalformedError`` for a payload that is none, that lists a file twice or outside of
    the folder, or that has digests other than sha256 of whole files.
    """
    where = f"{what}: the statement"
    fields = Fields.of(parse_json_object(payload, what=where), where)
    _require(fields, "_type", _STATEMENT_TYPE)
    _require(fields, "predicateType", _PREDICATE_TYPE)
    subjects = tuple(fields.mappings("subject"))
    if len(subjects) != 1:
        raise fields.refuse("subject", f"{len(subjects)} of them; there must be one")
    predicate = fields.mapping("predicate")
    serialization = predicate.mapping("serialization")
    _require(serialization, "method", "files")
    _require(serialization, "hash_type", "sha256")
    files: dict[str, Digest] = {}
    for resource in predicate.mappings("resources"):
        name = _inside_name(resource)
        if name in files:
            raise resource.refuse("name", f"{name[:200]!a} is there twice")
        _require(resource, "algorithm", "sha256")
        files[name] = resource.digest("digest")
    if subjects[0].mapping("digest").digest("sha256") != _root(files.values()):
        raise fields.refuse("subject", "has not the digest of the files that are listed")
    return MappingProxyType(files)


def _root(digests: Iterable[Digest]) -> Digest:
    return Digest.of(b"".join(bytes.fromhex(digest.hex) for digest in digests))


def _inside_name(resource: Fields) -> str:
    """The name of a file in the folder. It is compared, never opened: hidden ones may be."""
    name = resource.text("name")
    if {"", ".", ".."}.intersection(name.split("/")) or "\\" in name or has_unprintable(name):
        raise resource.refuse("name", f"{name[:200]!a} is not the path of a file in the folder")
    return name


def _require(fields: Fields, key: str, value: str) -> None:
    found = fields.text(key)
    if found != value:
        raise fields.refuse(key, f"{found[:80]!a} is not {value}")
