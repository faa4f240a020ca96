"""Certificates of an authority of one's own, right and wrong ones, and servers that show them, for tests."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NOW = datetime.datetime.now(datetime.UTC)


class Signed(NamedTuple):
    """A certificate with its key, and their files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path
    key_path: Path


def make(
    folder: Path,
    name: str,
    by: Signed | None = None,
    *,
    host: str = "127.0.0.1",
    days: tuple[int, int] = (-1, 400),
    mode: int = 0o600,
) -> Signed:
    """Make a certificate for a host that holds between two days from now; an authority's own without ``by``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin, end = (_NOW + datetime.timedelta(days=day) for day in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if by is not None:
        address = x509.IPAddress(ipaddress.ip_address(host))
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        builder = builder.add_extension(issuer, critical=False)
    certificate = builder.sign(key if by is None else by.key, hashes.SHA256())
    path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    key_path.chmod(mode)
    return Signed(certificate, key, path, key_path)


def http_answer(status: str = "404 Not Found", ahead: float = 0.0) -> bytes:
    """Return an answer of a server whose clock is ``ahead`` of this machine's by some seconds."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead)
    return f"HTTP/1.1 {status}\r\nServer: stub\r\nDate: {moment:%a, %d %b %Y %H:%M:%S} GMT\r\n\r\n".encode()


@contextlib.contextmanager
def serving(shown: Signed | None, answer: bytes) -> Iterator[str]:
    """Serve one answer to whoever connects, over TLS with a certificate or without; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = None
        if shown is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(shown.path, shown.key_path)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(5)
                    secured = connection if context is None else context.wrap_socket(connection, server_side=True)
                    with secured:
                        secured.recv(4096)
                        secured.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def closed_port() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"
