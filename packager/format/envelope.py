"""DSSE: what is signed is a payload together with its type (DSSE v1.0.0).

Source: ``protocol.md`` and ``envelope.md`` of github.com/secure-systems-lab/dsse.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from packager.format import canonical
from packager.format.fields import Fields
from packager.format.statement import MAX_PROVENANCE_SIZE

IN_TOTO = "application/vnd.in-toto+json"  # the payload type of in-toto statements
_NAME = re.compile(r"provenance\.([0-9a-f]{16})\.dsse\.json\Z")
MAX_ENVELOPE_SIZE = MAX_PROVENANCE_SIZE * 3 // 2  # bytes; base64 takes four for three


@dataclass(frozen=True)
class Envelope:
    """A payload of the type :data:`IN_TOTO`, and one signature over it by the key ``key_id``."""

    payload: bytes
    key_id: str
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the ``signature`` is over."""
        return pre_authentication_encoding(IN_TOTO, self.payload)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature is over: PAE(UTF8(type), body) of DSSE v1.0.0, protocol.md.

    Each length counts bytes, of the type in UTF-8 too.
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope_name(key_id: str) -> str:
    """What the envelope of the provenance that the key ``key_id`` signed is called."""
    return f"provenance.{key_id}.dsse.json"


def envelope_key_id(name: str) -> str | None:
    """The key id in an envelope's name, or ``None`` for any other file."""
    match = _NAME.match(name)
    return match[1] if match else None


def encode_envelope(envelope: Envelope) -> bytes:
    """Write an envelope as canonical JSON."""
    return canonical.encode(
        {
            "payload": base64.b64encode(envelope.payload).decode("ascii"),
            "payloadType": IN_TOTO,
            "signatures": [
                {
                    "keyid": envelope.key_id,
                    "sig": base64.b64encode(envelope.signature).decode("ascii"),
                }
            ],
        }
    )


def parse_envelope(data: bytes, what: str) -> Envelope:
    """Read what :func:`encode_envelope` writes, called ``what`` in errors.

    Nothing of it is believed yet. Raises ``MalformedError`` for any other document.
    """
    document = canonical.decode(data, what=what, max_size=MAX_ENVELOPE_SIZE)
    fields = Fields.of(document, what)
    fields.only("payload", "payloadType", "signatures")
    if fields.text("payloadType") != IN_TOTO:
        raise fields.refuse("payloadType", f"not {IN_TOTO}")
    signatures = tuple(fields.mappings("signatures"))
    if len(signatures) != 1:
        raise fields.refuse("signatures", f"{len(signatures)} of them; there must be one")
    signatures[0].only("keyid", "sig")
    return Envelope(
        fields.base64("payload"), signatures[0].text("keyid"), signatures[0].base64("sig")
    )
