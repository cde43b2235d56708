"""The ``model-signing`` package, which others sign folders with, and check them."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from model_signing import hashing, signing, verifying


def sign_folder(folder: Path, key: Path) -> Path:
    """Sign ``folder`` with the private key in ``key``; the signature lies in it."""
    signature = folder / "model.sig"
    every_file = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(every_file).sign(folder, signature)
    return signature


def accepts(folder: Path, signature: Path, key: Path) -> bool:
    """Whether ``signature`` is over ``folder``, git's files among it, by the public ``key``."""
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    every_file = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    try:
        config.set_hashing_config(every_file).verify(folder, signature)
    except (ValueError, InvalidSignature):
        return False
    return True
