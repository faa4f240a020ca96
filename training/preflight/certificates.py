"""Checks of a federation's files of trust: certificates, their keys and authority, and a node's own key."""

import datetime
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import check_readable, is_file, reaching, status
from fedpareto.training.preflight.findings import Finding

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

#: Days before its end from which a certificate is warned of.
_SOON = 30

#: Bytes that a file of certificates or of a key has at most.
_LONGEST = 1 << 20

_MAKE = "run deploy/make-certificates on the server again, and install what it wrote"
_FETCH = "fetch ca.crt from the server again"


def authority(path: Path, fetch: str = _FETCH) -> Finding:
    """Check the certificate of an authority: that it is one, and that it holds now.

    Args:
        path: its PEM file.
        fetch: words on where the right one comes from.
    """
    what = "authority"
    try:
        certificate = read_certificate(path)
    except UserError as error:
        return Finding(what, str(error), "failed", fetch)
    if not _is_authority(certificate):
        return Finding(what, f"{path} is the certificate of {_name(certificate)}, no authority", "failed", fetch)
    return validity(what, path, certificate, f"{_MAKE}; send ca.crt to every site")


def pair(path: Path, key: Path, issuer: Path) -> Iterator[Finding]:
    """Yield findings about a server's certificate and its key: validity, who signed, the key's mode, a match."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - a site may lack it, which is a finding
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    certificate = read_certificate(path)
    yield validity(path.name, path, certificate, _MAKE)
    try:
        certificate.verify_directly_issued_by(read_certificate(issuer))
    except (InvalidSignature, ValueError, TypeError):
        yield Finding(f"{path.name} by", f"{path} was not signed by {issuer}", "failed", _MAKE)
    else:
        yield Finding(f"{path.name} by", f"signed by {issuer}")
    opened = mode(key.name, key)
    if opened.state == "failed":
        yield opened
        return
    try:
        private = load_pem_private_key(_content(key), None)
    except (ValueError, TypeError) as error:
        yield Finding(key.name, f"{key} is no private key in PEM ({_line(error)})", "failed", _MAKE)
        return
    if private.public_key() != certificate.public_key():
        yield Finding(key.name, f"{key} is not the key of {path}", "failed", _MAKE)
    else:
        yield Finding(key.name, f"the key of {path.name}")


def node_key(path: Path) -> Finding:
    """Check the private key that a SuperNode is known by: a NIST curve in OpenSSH's format, closed to others."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - a site may lack it, which is a finding
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key  # noqa: PLC0415

    what, make = "node's key", "make one with deploy/make-node-key, and register its .pub on the server"
    opened = mode(what, path)
    if opened.state == "failed":
        return opened
    try:
        key = load_ssh_private_key(_content(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return Finding(what, f"{path} is no OpenSSH key without a passphrase ({_line(error)})", "failed", make)
    if not isinstance(key, EllipticCurvePrivateKey):
        return Finding(what, f"{path} is a key of another kind than a NIST curve", "failed", make)
    return Finding(what, f"{path}, {key.curve.name}")


def mode(what: str, path: Path) -> Finding:
    """Check that a private key is there and that its file is closed to all but its owner and its group."""
    found = status(path)
    if found is None:
        return Finding(what, f"{path} is missing", "failed", "put the key there, or name the file it is in")
    if found.st_mode & stat.S_IRWXO:
        bits = f"{stat.S_IMODE(found.st_mode):04o}"
        return Finding(what, f"{path} has mode {bits}: all users may read it", "failed", f"chmod 600 {path}")
    return Finding(what, str(path))


def validity(what: str, path: Path, certificate: "Certificate", remedy: str) -> Finding:
    """Check that a certificate holds now, and for some weeks more."""
    now = datetime.datetime.now(datetime.UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return Finding(what, f"{path} holds from {begin:%Y-%m-%d} only", "failed", "set the clock, or wait")
    days = (end - now).days
    if now >= end:
        return Finding(what, f"{path} expired on {end:%Y-%m-%d}", "failed", remedy)
    return Finding(what, f"{path}, holds until {end:%Y-%m-%d}", "warning" if days < _SOON else "ok", remedy)


def read_certificate(path: Path) -> "Certificate":
    """Read the first certificate of a PEM file.

    Raises:
        UserError: it cannot be read or holds none.
    """
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415

    try:
        return load_pem_x509_certificate(_content(path))
    except ValueError as error:
        raise UserError(f"{path} holds no certificate in PEM ({_line(error)})") from error


def _is_authority(certificate: "Certificate") -> bool:
    from cryptography.x509 import BasicConstraints, ExtensionNotFound  # noqa: PLC0415

    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except (ExtensionNotFound, ValueError):
        return False


def _name(certificate: "Certificate") -> str:
    return certificate.subject.rfc4514_string()


def _content(path: Path) -> bytes:
    if not is_file(path):
        raise UserError(f"{path} is no file")
    check_readable(path, _LONGEST)
    with reaching(path):
        return path.read_bytes()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
