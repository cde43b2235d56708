"""What a stock host types to check a bundle, before anything from the medium runs."""

from __future__ import annotations

from packager.format.sums import SUMS_NAME, signature_name
from packager.trust.keys import P256

FINGERPRINT_COMMAND = "openssl pkey -pubin -in KEY.pub -outform DER | sha256sum"
SUMS_COMMAND = f"sha256sum -c {SUMS_NAME}"


def signature_command(key_id: str = "KEY-ID", algorithm: str = P256) -> str:
    """The command that checks the signature of a key over the sums, in one line or two."""
    signature = signature_name(key_id)
    if algorithm == P256:
        return f"openssl dgst -sha256 -verify KEY.pub -signature {signature} {SUMS_NAME}"
    return (
        f"openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in {SUMS_NAME} \\\n"
        f"    -sigfile {signature}        (OpenSSL 3.5 or later)"
    )
