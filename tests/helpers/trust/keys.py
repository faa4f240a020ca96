"""Keys that folders are signed with, as files, for tests."""

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class KeyPair(NamedTuple):
    """Files of a private key and of its public half."""

    private: Path
    public: Path


def write_private(path: Path, key: PrivateKeyTypes, passphrase: bytes | None = None, mode: int = 0o600) -> Path:
    """Write a private key as PEM."""
    sealing = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def write_pair(folder: Path, name: str = "sign", seed: int = 1) -> KeyPair:
    """Write the pair of keys of a seed."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    public = folder / f"{name}.pub"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return KeyPair(write_private(folder / f"{name}.pem", key), public)
