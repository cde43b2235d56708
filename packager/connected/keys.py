"""Private keys: made, kept and used on the connected side only."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from packager.errors import TrustError, UsageError
from packager.store.atomic import naming_refusals, read_capped, write_file
from packager.trust.keys import MAX_KEY_FILE_SIZE, P256, PublicKey, parse_spki

_Private = ec.EllipticCurvePrivateKey | mldsa.MLDSA87PrivateKey


@dataclass(frozen=True)
class SigningKey:
    """A private key, opened, and its public half."""

    private: _Private
    public: PublicKey

    def sign(self, data: bytes) -> bytes:
        """A detached signature: DER ECDSA with SHA-256, or raw ML-DSA-87."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(data, ec.ECDSA(SHA256()))
        return self.private.sign(data)


def generate_key(path: Path, algorithm: str, passphrase: bytes | None) -> PublicKey:
    """Write a new key pair: ``path`` (PKCS#8 PEM, mode 0600) and ``path``.pub (SPKI PEM).

    Raises ``UsageError`` where either file is there already: a key is never overwritten.
    """
    public_path = public_path_of(path)
    for existing in (path, public_path):
        if existing.exists():
            raise UsageError(f"{existing}: exists; a key is never overwritten")
    private: _Private = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == P256
        else mldsa.MLDSA87PrivateKey.generate()
    )
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    write_file(path, pem, mode=0o600)
    write_file(
        public_path,
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    return _public_half(private, str(path))


def public_path_of(path: Path) -> Path:
    """Where the public half of the key at ``path`` goes."""
    return path.with_name(path.name + ".pub")


def is_encrypted(path: Path) -> bool:
    """Whether the private key at ``path`` needs a passphrase."""
    return b"ENCRYPTED" in read_capped(path, MAX_KEY_FILE_SIZE)


def open_key(path: Path, passphrase: bytes | None) -> SigningKey:
    """Open a private key; raises ``TrustError`` if others can read it, or it will not open."""
    with naming_refusals(path):
        mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TrustError(
            f"{path}: this private key can be read by others (mode {mode & 0o777:03o})",
            hint=f"chmod 600 {path}; if others had access to it, make a new key",
        )
    try:
        private = load_pem_private_key(read_capped(path, MAX_KEY_FILE_SIZE), passphrase)
    except TypeError:
        fact = "needs a passphrase" if passphrase is None else "has no passphrase"
        raise TrustError(f"{path}: this key {fact}") from None
    except ValueError:
        fact = "not a private key in PEM form" if passphrase is None else "wrong passphrase"
        raise TrustError(f"{path}: {fact}") from None
    if not isinstance(private, (ec.EllipticCurvePrivateKey, mldsa.MLDSA87PrivateKey)):
        raise TrustError(f"{path}: neither an ECDSA P-256 nor an ML-DSA-87 key")
    return SigningKey(private, _public_half(private, str(path)))


def read_passphrase(path: Path) -> bytes:
    """The first line of a passphrase file (``/dev/fd/3`` names a descriptor)."""
    with naming_refusals(path), open(path, "rb") as stream:
        line = stream.readline(4096).rstrip(b"\r\n")
    if not line:
        raise UsageError(f"{path}: the passphrase is empty")
    return line


def _public_half(private: _Private, what: str) -> PublicKey:
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return parse_spki(der, what)
