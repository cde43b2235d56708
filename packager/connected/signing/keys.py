"""Private keys: made, kept and used on the connected side only."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from packager.connected.signing.pkcs8 import encrypt_pkcs8
from packager.errors import HostError, TrustError, UsageError
from packager.store.atomic import fsync_directory, naming_refusals, open_regular, read_capped
from packager.trust.keys import (
    ALGORITHMS,
    MAX_KEY_FILE_SIZE,
    ML_DSA_87,
    P256,
    PublicKey,
    parse_spki,
)

MAX_PASSPHRASE_SIZE = 1023  # bytes; the most that OpenSSL takes

_ENCRYPTED = b"ENCRYPTED"
_DESCRIPTOR = re.compile(r"/dev/fd/([0-9]{1,6})")
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
        if os.path.lexists(existing):
            raise _exists(existing)
    private = _generate(algorithm)
    public = _public_half(private, str(path))
    _create(path, _pem(private, passphrase), mode=0o600)
    try:
        public_half = private.public_key()
        _create(
            public_path,
            public_half.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            mode=0o644,
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return public


def _generate(algorithm: str) -> _Private:
    if algorithm == P256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == ML_DSA_87:
        try:
            return mldsa.MLDSA87PrivateKey.generate()
        except UnsupportedAlgorithm:
            raise HostError(
                "the cryptography installed here was built without ML-DSA",
                hint="pip install cryptography from a wheel, or use --algorithm p256",
            ) from None
    raise UsageError(f"no such algorithm: {algorithm}", hint=f"one of {', '.join(ALGORITHMS)}")


def _pem(private: _Private, passphrase: bytes | None) -> bytes:
    """PKCS#8 in PEM, encrypted if there is a passphrase."""
    if passphrase is None:
        return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not 0 < len(passphrase) <= MAX_PASSPHRASE_SIZE:
        raise UsageError(
            f"the passphrase has {len(passphrase)} bytes; it may have 1 to {MAX_PASSPHRASE_SIZE}",
            hint="--no-passphrase leaves the private key unencrypted",
        )
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encrypt_pkcs8(der, passphrase)


def _create(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not be there yet, durably; none is left where that fails."""
    with naming_refusals(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            raise _exists(path) from None
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            fsync_directory(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path}: exists; a key is never overwritten", hint="choose another name")


def public_path_of(path: Path) -> Path:
    """Where the public half of the key at ``path`` goes."""
    return path.with_name(path.name + ".pub")


def is_encrypted(path: Path) -> bool:
    """Whether the private key at ``path`` needs a passphrase."""
    return _ENCRYPTED in read_capped(path.resolve(), MAX_KEY_FILE_SIZE)


def open_key(path: Path, passphrase: bytes | None) -> SigningKey:
    """Open a private key; raises ``TrustError`` if others can read it, or it will not open."""
    pem = _read_private(path)
    try:
        private = load_pem_private_key(pem, passphrase)
    except TypeError:
        fact = "needs a passphrase" if passphrase is None else "has no passphrase"
        raise TrustError(f"{path}: this key {fact}", hint="--passphrase-file FILE") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = passphrase is not None and _ENCRYPTED in pem
        fact = "wrong passphrase" if wrong else "not a private key in PEM form"
        raise TrustError(f"{path}: {fact}") from None
    if not isinstance(private, (ec.EllipticCurvePrivateKey, mldsa.MLDSA87PrivateKey)):
        raise TrustError(f"{path}: neither an ECDSA P-256 nor an ML-DSA-87 key")
    return SigningKey(private, _public_half(private, str(path)))


def _read_private(path: Path) -> bytes:
    # A link is followed: secrets are often mounted as links, and this is the owner's own host.
    with open_regular(path.resolve()) as descriptor:
        mode = os.fstat(descriptor).st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise TrustError(
                f"{path}: this private key can be read by others (mode {mode & 0o777:03o})",
                hint=f"chmod 600 {path}; if others had access to it, make a new key",
            )
        with naming_refusals(path):
            pem = os.read(descriptor, MAX_KEY_FILE_SIZE + 1)
    if len(pem) > MAX_KEY_FILE_SIZE:
        raise TrustError(f"{path}: not a private key in PEM form")
    return pem


def read_passphrase(path: Path) -> bytes:
    """The first line of a passphrase file, or the next line of a descriptor, ``/dev/fd/3``.

    A descriptor is read where it stands, and no byte beyond the line: several keys can have a
    line each, and a pipe that another account opened need not be opened again.
    """
    descriptor = _DESCRIPTOR.fullmatch(str(path))
    with naming_refusals(path):
        if descriptor:
            line = _next_line(int(descriptor[1]))
        else:
            with open(path, "rb") as stream:
                line = stream.readline(MAX_PASSPHRASE_SIZE + 3)
    line = line.rstrip(b"\r\n")
    if not line:
        raise UsageError(f"{path}: the passphrase is empty")
    if len(line) > MAX_PASSPHRASE_SIZE:
        raise UsageError(f"{path}: the passphrase is over {MAX_PASSPHRASE_SIZE} bytes")
    return line


def _next_line(descriptor: int) -> bytes:
    line = b""
    while len(line) < MAX_PASSPHRASE_SIZE + 3 and not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line


def _public_half(private: _Private, what: str) -> PublicKey:
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return parse_spki(der, what)
