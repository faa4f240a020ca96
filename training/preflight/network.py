"""Checks of a server from here: that it answers, that its TLS is to be trusted, what speaks there, and its clock."""

import contextlib
import datetime
import email.utils
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.preflight.findings import Finding

#: Seconds for a connection, and for each word of an answer.
_PATIENCE = 10.0

#: Bytes of an answer that are looked at.
_MOST = 1 << 16

#: Seconds that a node's clock may be ahead of the server's, and behind it, before Flower refuses what it signs.
_AHEAD, _BEHIND = 5.0, 300.0

#: Seconds of difference that are no more than the time of a message and a clock that tells whole seconds.
_UNSURE = 2.0

_SET_CLOCK = "let this machine's clock be set by NTP (timedatectl set-ntp true)"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; the brackets of an IPv6 address are left out.

    Raises:
        UserError: it is no such address.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UserError(f"{address!r} is no address; it must be HOST:PORT, e.g. fl.example.org:9443")
    return host.strip("[]"), int(port)


def reach(address: str, authority: Path | None, *, gateway: bool) -> Iterator[Finding]:
    """Yield findings about a server: whether it answers, its certificate, and what it says over HTTP.

    Args:
        address: HOST:PORT.
        authority: certificate of the authority that it must be signed by; None without TLS.
        gateway: whether it is to be a gateway, which answers 404 to whoever is no node.
    """
    host, port = split_address(address)
    started = time.monotonic()
    try:
        connection = socket.create_connection((host, port), _PATIENCE)
    except OSError as error:
        yield Finding("address", f"{address}: {_reason(error)}", "failed", _remedy(error, gateway=gateway))
        return
    with contextlib.closing(connection):
        yield Finding("address", f"{address} answers after {(time.monotonic() - started) * 1000:.0f} ms")
        if authority is None:
            yield Finding("TLS", "none", "warning", "use certificates (deploy/make-certificates) off this machine")
            yield from _spoken(connection, host, gateway=gateway)
            return
        try:
            context = ssl.create_default_context(cafile=authority)
            secured = context.wrap_socket(connection, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            yield Finding("TLS", f"{address}: {error.verify_message}", "failed", _certificate_remedy(error, host))
            return
        except (ssl.SSLError, OSError) as error:
            words = f"{address} speaks no TLS that goes with {authority}: {_reason(error)}"
            yield Finding("TLS", words, "failed", "check that the port is the gateway's (deploy/README.md)")
            return
        with contextlib.closing(secured):
            yield _held(secured)
            yield from _spoken(secured, host, gateway=gateway)


def _held(secured: ssl.SSLSocket) -> Finding:
    certificate = secured.getpeercert() or {}
    end = str(certificate.get("notAfter", ""))
    days = (ssl.cert_time_to_seconds(end) - time.time()) / 86400 if end else float("inf")
    found = f"{secured.version()}, its certificate holds until {end or 'it does not say when'}"
    renew = "let the server's certificate be renewed soon: deploy/make-certificates there"
    return Finding("TLS", found, "warning" if days < 30 else "ok", renew)


def _spoken(connection: socket.socket, host: str, *, gateway: bool) -> Iterator[Finding]:
    """Ask for a page that no gateway has; what answers, and when, is told by the answer's head."""
    connection.settimeout(_PATIENCE)
    try:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = _head(connection)
    except OSError:
        head = b""
    here = datetime.datetime.now(datetime.UTC)
    first, _, rest = head.partition(b"\r\n")
    words = first.decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        state = "it takes connections and says nothing over HTTP"
        if gateway:
            remedy = "check that the port is the gateway's, and that nginx and the SuperLink run (deploy/README.md)"
            yield Finding("gateway", state, "failed", remedy)
        return
    if gateway and words[1] != "404":
        remedy = "let the server's gateway stand before the SuperLink, whose own port must be closed (deploy/README.md)"
        yield Finding("gateway", f"it answers {words[1]} to anyone, where a gateway answers 404", "failed", remedy)
    elif gateway:
        yield Finding("gateway", "it answers 404 to who is no node, as it should")
    date = _date(rest)
    if date is not None:
        yield _clock((here - date).total_seconds())


def _clock(ahead: float) -> Finding:
    """Judge by how many seconds this machine's clock is ahead of the server's."""
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    if abs(ahead) <= _UNSURE:
        return Finding("clock", "as the server's, to 2 s")
    if ahead > _AHEAD + _UNSURE or ahead < -_BEHIND:
        return Finding("clock", f"{found}: what a node signs is refused", "failed", _SET_CLOCK)
    return Finding("clock", found, "warning", _SET_CLOCK)


def _head(connection: socket.socket) -> bytes:
    head = b""
    # A server that sends byte after byte is not waited for longer than one that sends nothing.
    ends = time.monotonic() + _PATIENCE
    while b"\r\n\r\n" not in head and len(head) < _MOST and time.monotonic() < ends:
        part = connection.recv(4096)
        if not part:
            break
        head += part
    return head


def _date(head: bytes) -> datetime.datetime | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"date":
            try:
                found = email.utils.parsedate_to_datetime(value.decode("latin-1").strip())
            except ValueError:
                return None
            return found if found.tzinfo is not None else None
    return None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error)


def _remedy(error: OSError, *, gateway: bool) -> str:
    server = "the gateway" if gateway else "the SuperLink"
    if isinstance(error, socket.gaierror):
        return "correct the host's name, or mend this machine's DNS"
    if isinstance(error, ConnectionRefusedError):
        return f"start {server} on the server, or correct the port"
    return f"let a firewall pass this port outwards, and see that {server} is running there"


def _certificate_remedy(error: ssl.SSLCertVerificationError, host: str) -> str:
    # OpenSSL's numbers: 10 expired, 9 not yet valid, 62 and 64 another host or address.
    if error.verify_code == 10:
        return "let the server's certificate be renewed: deploy/make-certificates there"
    if error.verify_code == 9:
        return "set this machine's clock"
    if error.verify_code in (62, 64):
        return f"name the server as its certificate does, or make one for {host}: deploy/make-certificates"
    return "fetch ca.crt from the server again: it is not the authority that signed this"
