"""Secrets of a private run: its 256-bit key, the file that holds it, and what is derived from it."""

import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from fedpareto.supernet.common.errors import UserError

#: Bytes of a key, as of everything that is derived from it.
KEY_BYTES = 32

#: Name and version of all derivations: another program's, or a later version's, are others.
_LABEL = b"fedpareto private run, version 1"

_FORM = re.compile(rb"[0-9a-f]{64}\n")

#: Form of the keys whose noise came from a generator with a state of 32 bits.
_EARLIER_FORM = re.compile(rb"[0-9a-f]{32}\n")


def derive(key: bytes, purpose: str, *parts: str | int | bytes) -> bytes:
    """Derivation of 32 bytes from a key for one purpose: HMAC-SHA256 over the parts, each preceded by its length.

    The lengths make the encoding unambiguous: no two lists of parts are the same bytes, apart from a number and its
    digits.
    """
    return hmac.digest(key, encoded(_LABEL, purpose, *parts), "sha256")


def encoded(*parts: str | int | bytes) -> bytes:
    """Parts as bytes, each preceded by its length in 8 bytes; texts are UTF-8, numbers their decimal digits."""
    return b"".join(
        len(part).to_bytes(8) + part for part in (one if isinstance(one, bytes) else str(one).encode() for one in parts)
    )


def write_key(path: Path) -> None:
    """Write a new key to a file that only its owner may read.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    # It is in no checkpoint, as those are handed on: whoever has it can take the noise off.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secrets.token_hex(KEY_BYTES)}\n")


def read_key(path: Path) -> bytes:
    """Key of a private run, from a file of exactly 64 hex digits in small letters and the end of their line.

    Raises:
        UserError: the file is missing, a link, somebody else's, readable by others, or of another form; with another
            key, rounds that are repeated would leak.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "a link" if path.is_symlink() else f"missing or unreadable ({error.strerror or error})"
        raise UserError(f"{path} is {reason}; a private run cannot go on without its key: put it back") from error
    try:
        _check_owned(path, os.fstat(descriptor))
        text = os.read(descriptor, 4 * KEY_BYTES)
    finally:
        os.close(descriptor)
    if _EARLIER_FORM.fullmatch(text):
        raise UserError(
            f"{path} is of an earlier version, whose noise had 32 bits of secret and can be taken off; this run is not "
            f"private and cannot go on as such: start a new run with another --output and --init {path.parent}"
        )
    if not _FORM.fullmatch(text):
        raise UserError(
            f"{path} is damaged; it must be 64 hex digits in small letters and the end of their line: put it back as "
            "it was written"
        )
    return bytes.fromhex(text.decode("ascii").strip())


def _check_owned(path: Path, status: os.stat_result) -> None:
    """Refuse what is no ordinary file of this user alone."""
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no ordinary file; a private run cannot go on without its key: put it back")
    if status.st_uid != os.geteuid():
        raise UserError(
            f"{path} belongs to another user (number {status.st_uid}), who can read it; resume the run as that user"
        )
    if status.st_mode & 0o077:
        raise UserError(
            f"{path} may be read or written by others (mode {status.st_mode & 0o777:04o}), and whoever has it can take "
            f"the noise off; if nobody has, close it with: chmod 600 {path}"
        )
