"""Signatures of folders: who holds the public key of their maker can tell that every file in them is the maker's.

``signature.json`` signs the digests of a folder's files (``digests.json``), the kind of folder it is, and the digests
of files elsewhere that the folder belongs to. Signatures are Ed25519 (RFC 8032), keys are PEM files as openssl writes
them: ``openssl genpkey -algorithm ed25519 -out sign.pem`` and ``openssl pkey -in sign.pem -pubout -out sign.pub``.
"""

import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extras import require_extra
from fedpareto.supernet.common.formats.json_fields import fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.digests import DIGESTS, SIGNATURE, check_folder, digest_of, read_digests
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.storage.path_checks import check_readable, exists, reaching, status

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT, VERSION, ALGORITHM = "fedpareto-signature", 1, "ed25519"

#: Names the passphrase of an encrypted private key.
PASSPHRASE = "FEDPARETO_SIGN_PASSPHRASE"  # noqa: S105 - its name, not the passphrase

#: What is signed begins with this, so that a signature for another purpose is none of ours.
_CONTEXT = b"fedpareto folder signature 1\0"

#: Bytes that a file of a key has at most.
_LONGEST_KEY = 1 << 16

_MAKE = "openssl genpkey -algorithm ed25519 -out sign.pem"
_PUBLISH = "openssl pkey -in sign.pem -pubout -out sign.pub"


class SignatureError(UserError):
    """A folder whose signature is missing, of somebody else, or not of the files in it; or a key that is none."""


@dataclasses.dataclass(frozen=True)
class SigningKey:
    """Private key that folders are signed with."""

    _key: "Ed25519PrivateKey" = dataclasses.field(repr=False)

    @property
    def public(self) -> "VerifyKey":
        """The public half."""
        return VerifyKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self._key.sign(message)


@dataclasses.dataclass(frozen=True)
class VerifyKey:
    """Public key that signatures are checked with."""

    _key: "Ed25519PublicKey" = dataclasses.field(repr=False)

    @property
    def hex(self) -> str:
        """The key's 32 bytes as hex digits."""
        return self._key.public_bytes_raw().hex()

    def fits(self, signature: bytes, message: bytes) -> bool:
        """Return True if a signature is this key's, of this message."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only who signs needs the package

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclasses.dataclass(frozen=True)
class Keys:
    """Keys that a command was given.

    Attributes:
        sign: key that it signs with what it writes; None to sign nothing.
        verify: key that must have signed what it reads; None to read also what is not signed.
    """

    sign: SigningKey | None = None
    verify: VerifyKey | None = None


#: Nothing is signed, and nothing need be.
NO_KEYS = Keys()


def read_keys(sign: str | Path | None, verify: str | Path | None) -> Keys:
    """Read the keys in the files that a command was given.

    Raises:
        SignatureError: one is not a key, or not kept as one.
        UserError: one cannot be read, or the package that signs is missing.
    """
    return Keys(
        None if sign is None else read_signing_key(_path(sign, "sign")),
        None if verify is None else read_verify_key(_path(verify, "verify")),
    )


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key, whose passphrase is in the environment where it is encrypted.

    Raises:
        SignatureError: it is no Ed25519 key in PEM, its passphrase is missing or wrong, or others may read the file.
        UserError: it cannot be read, or the package that signs is missing.
    """
    require_signing()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    content = _key_file(path)
    if b"PUBLIC KEY" in content:
        raise SignatureError(f"{path} is a public key; sign with the private one that it was made of")
    found = status(path)
    if found is not None and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise SignatureError(f"{path} is a private key of mode {mode}, which others may read; chmod 600 it")
    encrypted = b"ENCRYPTED" in content
    passphrase = os.environ.get(PASSPHRASE) if encrypted else None
    if encrypted and not passphrase:
        raise SignatureError(f"{path} is encrypted; give its passphrase in the variable {PASSPHRASE}")
    try:
        key = serialization.load_pem_private_key(content, None if passphrase is None else passphrase.encode())
    except Exception as error:
        why = f"is not opened by the passphrase in {PASSPHRASE}" if encrypted else "holds no private key in PEM"
        raise SignatureError(f"{path} {why}; a key is made with: {_MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a private key of another kind than Ed25519; make one with: {_MAKE}")
    return SigningKey(key)


def read_verify_key(path: Path) -> VerifyKey:
    """Read a public key.

    Raises:
        SignatureError: it is no Ed25519 key in PEM.
        UserError: it cannot be read, or the package that checks signatures is missing.
    """
    require_signing()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    content = _key_file(path)
    if b"PRIVATE KEY" in content:
        raise SignatureError(f"{path} is a private key; verify with its public half: {_PUBLISH}")
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:
        raise SignatureError(f"{path} holds no public key in PEM; one is made with: {_PUBLISH}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} holds a public key of another kind than Ed25519; one is made with: {_PUBLISH}")
    return VerifyKey(key)


def require_signing() -> None:
    """Refuse to sign or verify without the package for it.

    Raises:
        UserError: it is missing; it names the line that installs it.
    """
    require_extra("signing", ["cryptography"])


def is_signed(folder: Path) -> bool:
    """Return True if a folder has a signature, of whatever and by whomever."""
    return exists(folder / SIGNATURE)


def sign_folder(folder: Path, kind: str, key: SigningKey, beside: Mapping[str, str] | None = None) -> None:
    """Sign a folder, whose files all have digests.

    Args:
        folder: the folder.
        kind: kind of folder, such as ``subnet``; a signature of one kind is none of another.
        key: the private key.
        beside: SHA-256 of files elsewhere that the folder belongs to, by their names.

    Raises:
        UserError: it cannot be written.
    """
    elsewhere = dict(beside or {})
    signature = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": ALGORITHM,
        "kind": kind,
        "beside": elsewhere,
        "public_key": key.public.hex,
        "signature": key.sign(_message(kind, read_digests(folder), elsewhere)).hex(),
    }
    write_text(folder / SIGNATURE, json.dumps(signature, indent=1) + "\n")


def check_signed(folder: Path, kind: str, trusted: VerifyKey | None, around: Path | None = None) -> None:
    """Refuse a folder whose signature does not fit, or that ``trusted`` has not signed; without it none is needed.

    With ``trusted`` every file of the folder must be signed for, without it only those that are must be whole.

    Args:
        folder: the folder.
        kind: kind of folder that it is to be.
        trusted: key that must have signed it; None where it need not be signed.
        around: folder that names of files beside it are relative to.

    Raises:
        SignatureError: naming the folder and what is wrong with it.
        DamagedError: a file in it has changed or is missing.
        UserError: the package that checks signatures is missing.
    """
    path = folder / SIGNATURE
    if not exists(path):
        if trusted is not None:
            raise SignatureError(
                f"{folder} is not signed ({SIGNATURE} is missing); take one that is, or leave --verify out"
            )
        return
    require_signing()
    beside = _check_signature(folder, path, kind, trusted)
    check_folder(folder, complete=True)
    if trusted is not None:
        _refuse_unsigned_files(folder)
    for name, digest in beside.items():
        if around is not None and _digest(around / name) != digest:
            raise SignatureError(f"{around / name} is not the file that {path} was made for; restore it from a copy")


def _check_signature(folder: Path, path: Path, kind: str, trusted: VerifyKey | None) -> dict[str, str]:
    """Check the signature alone; return the digests of files beside the folder that it is for."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    check_readable(path, _LONGEST_KEY)
    try:
        with reaching(path):
            fields = fields_of(parse_json(path.read_text(encoding="utf-8"), SIGNATURE), SIGNATURE)
        for name, ours in (("format", FORMAT), ("version", VERSION), ("algorithm", ALGORITHM)):
            fields.choice(name, [ours])
        public = bytes.fromhex(fields.text("public_key"))
        key = VerifyKey(Ed25519PublicKey.from_public_bytes(public))
        signature, signed_kind = bytes.fromhex(fields.text("signature")), fields.text("kind")
        within = fields.within("beside")
        beside = {name: within.text(name) for name in within.values}
    except (ValueError, UserError) as error:
        raise SignatureError(f"{path} is no signature ({error}); restore it from a copy") from error
    if trusted is not None and key.hex != trusted.hex:
        raise SignatureError(f"{folder} is signed with another key ({key.hex[:16]}…, not {trusted.hex[:16]}…)")
    if signed_kind != kind:
        raise SignatureError(f"{path} is the signature of a {signed_kind}, not of a {kind}")
    digests = read_digests(folder)
    if not key.fits(signature, _message(kind, digests, beside)):
        raise SignatureError(f"{path} does not fit the files in its folder: they, or it, are not as they were signed")
    return beside


def _refuse_unsigned_files(folder: Path) -> None:
    signed = read_digests(folder).keys() | {DIGESTS, SIGNATURE}
    with reaching(folder):
        extra = sorted(path.name for path in folder.iterdir() if path.name not in signed)
    if extra:
        raise SignatureError(f"{folder / extra[0]} is not among the signed files of its folder; remove it")


def _message(kind: str, files: Mapping[str, tuple[str, ...]], beside: Mapping[str, str]) -> bytes:
    """Return the canonical bytes that are signed: the order of files and the layout of JSON mean nothing."""
    statement = {"kind": kind, "files": {name: list(allowed) for name, allowed in files.items()}, "beside": beside}
    return _CONTEXT + json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def _digest(path: Path) -> str | None:
    with reaching(path):
        return digest_of(path) if path.is_file() else None


def _key_file(path: Path) -> bytes:
    check_readable(path, _LONGEST_KEY)
    with reaching(path):
        return path.read_bytes()


def _path(given: str | Path, name: str) -> Path:
    if not str(given).strip():
        raise UserError(f"{name} is empty, as if a variable was not set; name a key's file, or leave {name} out")
    return Path(given)
