"""Encrypted private keys: PKCS#8 with scrypt, at a cost that a thief of the file feels.

``cryptography`` encrypts PKCS#8 with 2,048 rounds of PBKDF2, which a graphics card tries
millions of times a second. This writes the same container (RFC 5958 EncryptedPrivateKeyInfo,
PBES2 of RFC 8018) with scrypt (RFC 7914 s.7.1) instead. The parameters are those OWASP holds to
be the least, in the form that takes no more than the 32 MiB at which stock openssl stops.
"""

from __future__ import annotations

import base64
import hashlib
import os
import textwrap

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

COST, BLOCK_SIZE, PARALLELISM = 1 << 14, 8, 5  # N, r, p: 16 MiB
_SALT_SIZE = _IV_SIZE = 16  # bytes
_KEY_SIZE = 32  # bytes, of AES-256

# Object identifiers, in DER.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")

_INTEGER, _OCTET_STRING, _SEQUENCE = 0x02, 0x04, 0x30


def encrypt_pkcs8(der: bytes, passphrase: bytes) -> bytes:
    """PEM of the private key ``der`` (PKCS#8), encrypted under ``passphrase``."""
    salt, iv = os.urandom(_SALT_SIZE), os.urandom(_IV_SIZE)
    key = hashlib.scrypt(
        passphrase, salt=salt, n=COST, r=BLOCK_SIZE, p=PARALLELISM, dklen=_KEY_SIZE
    )
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(der) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padded) + encryptor.finalize()
    numbers = b"".join(_integer(n) for n in (COST, BLOCK_SIZE, PARALLELISM))
    derivation = _sequence(_SCRYPT, _sequence(_tagged(_OCTET_STRING, salt), numbers))
    cipher = _sequence(_AES_256_CBC, _tagged(_OCTET_STRING, iv))
    scheme = _sequence(_PBES2, _sequence(derivation, cipher))
    return _pem(_sequence(scheme, _tagged(_OCTET_STRING, encrypted)))


def _pem(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    label = "ENCRYPTED PRIVATE KEY"
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----\n"]).encode()


def _sequence(*parts: bytes) -> bytes:
    return _tagged(_SEQUENCE, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tagged(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, content: bytes) -> bytes:
    """One DER element (X.690 s.8.1)."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content
