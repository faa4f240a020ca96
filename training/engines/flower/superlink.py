"""Link of the server to a running SuperLink: submits the app, then sends messages and collects replies through it."""

import contextlib
import errno
import ipaddress
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.engines.flower.relay_socket import GONE, PID, SOCKET, Line, LineLost, Reply

#: What Flower must not do: report to its makers, look for updates, install what an app asks for.
ENVIRONMENT: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}

#: Seconds for the SuperLink to take a run, of which Flower's imports may take a minute on a busy machine, and for a
#: SuperExec to start its ServerApp.
_SUBMISSION, _START = 300.0, 90.0

#: Seconds without an answer of the ServerApp after which it counts as lost; it waits for a SuperLink that restarts.
_SILENCE = 120.0

#: Seconds between two looks for nodes or replies.
_PAUSE = 0.5

#: Seconds for a connection to open.
_ANSWER = 10.0

#: Bytes of the temporary folder's name: a socket has 107, of which its own folder and name take 24.
_LONGEST_FOLDER = 83

_BUNDLE = Path(__file__).parent / "bundle"
_CONNECTION = "federation"

MessageType = Literal["train", "query"]


class Link(Protocol):
    """Link to nodes: carries messages to them and replies back, by any transport."""

    @property
    def folder(self) -> Path:
        """Folder of the messages' blobs."""

    def nodes(self) -> Sequence[str]:
        """Return the names of the nodes that are connected."""

    def send(self, node: str, kind: MessageType, header: bytes, blob: str | None, deadline: float) -> str | None:
        """Send a message; return its name, or None if the node is gone. ``blob`` is a file in the folder."""

    def collect(self, messages: Mapping[str, int]) -> Mapping[str, Reply]:
        """Return the replies that have come; ``messages`` has the most bytes of the reply to each message."""

    def wait(self) -> None:
        """Wait a moment before the next look for nodes or replies."""


class FlowerLink:
    """Link over Flower; connects when it is first used, and again after it was lost.

    Args:
        config: configuration of the SuperLink.
        name: name of the run, for Flower's logs.
    """

    def __init__(self, config: FlowerConfig, name: str) -> None:
        _check_security(config)
        self._config, self._name, self._command = config, name, _flwr_command()
        self._line: Line | None = None
        self._claim: socket.socket | None = None
        # Messages of this line that have no reply yet: on another one Flower does not know them.
        self._open: set[str] = set()
        _check_temporary_folder()
        # Last: whoever is refused has nothing to close.
        self.folder = Path(tempfile.mkdtemp(prefix="fedpareto-"))
        (self.folder / PID).write_text(str(os.getpid()))
        _write_connection(self.folder / "flwr", config)

    def nodes(self) -> Sequence[str]:
        """Return the names of the nodes that are connected.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        nodes: list[str] = self._ask(do="nodes")["nodes"]
        return nodes

    def send(self, node: str, kind: MessageType, header: bytes, blob: str | None, deadline: float) -> str | None:
        """Send a message; return its name, or None if the node is gone.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        # The margin lets an answer that was sent in time arrive.
        ttl = deadline + _SILENCE
        fields = {"node": node, "type": kind, "header": header.decode(), "blob": blob, "ttl": ttl, "group": self._name}
        name: str | None = self._ask(do="send", **fields)["message"]
        if name is not None:
            self._open.add(name)
        return name

    def collect(self, messages: Mapping[str, int]) -> Mapping[str, Reply]:
        """Return the replies that have come.

        Raises:
            LineLost: the SuperLink does not answer.
        """
        gone = {name: Reply(b"", None, GONE, "it was sent before the SuperLink was lost") for name in messages}
        wanted = {name: most for name, most in messages.items() if name in self._open}
        replies = self._ask(do="collect", messages=wanted)["replies"] if wanted else []
        found = {fields["message"]: self._reply(fields) for fields in replies}
        self._open -= found.keys()
        return {name: reply for name, reply in gone.items() if name not in wanted} | found

    def wait(self) -> None:
        """Wait a moment before the next look for nodes or replies."""
        time.sleep(_PAUSE)

    def close(self) -> None:
        """End the run on the SuperLink and remove the folder with the blobs."""
        self._hang_up()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._claim is not None:
            self._claim.close()

    def _reply(self, fields: Mapping[str, Any]) -> Reply:
        if "error" in fields:
            return Reply(b"", None, fields["error"], fields["reason"])
        return Reply(fields["header"].encode(), self.folder / fields["blob"])

    def _ask(self, **fields: Any) -> dict[str, Any]:
        if self._line is None:
            self._line = self._connected()
        try:
            self._line.write(fields)
            answer = self._line.read()
        except LineLost:
            self._hang_up()
            raise
        if answer is None:
            self._hang_up()
            raise LineLost("the ServerApp has ended")
        return answer

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        self._open.clear()

    def _connected(self) -> Line:
        """Submit the app and wait for its ServerApp to connect."""
        path = self.folder / SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(1)
            listening.settimeout(_START)
            self._submit()
            try:
                connection, _ = listening.accept()
            except TimeoutError as error:
                raise LineLost(
                    f"the SuperLink took the run, but no ServerApp started within {_START:.0f} s; start "
                    "flower-superexec beside it, as the user who runs this command"
                ) from error
        connection.settimeout(_SILENCE)
        return Line(connection)

    def _submit(self) -> None:
        check_reachable(self._config)
        if self._claim is None:
            self._claim = claimed(self._config.address)
        command = [self._command, "run", str(_BUNDLE), _CONNECTION, "--format", "json"]
        command += ["--run-config", f"line={json.dumps(str(self.folder))}"]
        environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(self.folder / "flwr")}
        try:
            done = subprocess.run(  # noqa: S603 - Flower's own command, found beside this Python
                command, env=environment, capture_output=True, text=True, timeout=_SUBMISSION, check=False
            )
        except subprocess.TimeoutExpired as error:
            # It was reached a moment ago.
            raise LineLost(
                f"it answers, but Flower's command has not submitted the run within {_SUBMISSION:.0f} s; this machine "
                "may be too busy, or short of memory"
            ) from error
        complaint = _complaint(done.stdout, done.stderr)
        if complaint is not None:
            raise LineLost(complaint)


def claimed(address: str) -> socket.socket:
    """Claim a SuperLink for this process until the socket that is returned is closed, or the process ends.

    Nodes do one thing at a time: the messages of two runs would wait for each other until deadlines pass. Whoever uses
    a SuperLink is on its host, so a name in that host's abstract namespace, which only Linux has, keeps runs apart;
    elsewhere nothing does.

    Raises:
        UserError: another process has claimed it; the message names the process.
    """
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform != "linux":
        return claim
    name = f"\0fedpareto-superlink-{_place(address)}"
    try:
        claim.bind(name)
        claim.listen(1)
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise UserError(f"the SuperLink at {address} cannot be claimed: {error.strerror or error}") from error
        raise UserError(
            f"another run ({_holder(name)}) uses the SuperLink at {address}; wait for it or stop it, or start a "
            "SuperLink of its own on another port"
        ) from error
    return claim


def _place(address: str) -> str:
    """Return the one name of an address; all of loopback's are one."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]").lower()
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            host = "localhost"
    return f"{host[:64]}:{int(port)}"


def _holder(name: str) -> str:
    """Return the process that listens on a socket, in words."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(name)
            pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return "of a process that has not said more"
    return f"of process {pid}"


def check_reachable(config: FlowerConfig) -> None:
    """Check that a SuperLink listens and that its certificate is right, as Flower's command does not report that.

    Raises:
        LineLost: nobody listens, or the certificate is wrong; the message says which.
    """
    bracketed, _, port = config.address.rpartition(":")
    host = bracketed.strip("[]")
    try:
        with socket.create_connection((host, int(port)), _ANSWER) as connection:
            if config.root_certificates is not None:
                context = ssl.create_default_context(cafile=config.root_certificates)
                context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        raise LineLost(
            f"its certificate is not vouched for by {config.root_certificates}: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise LineLost(f"no TLS is possible with it and {config.root_certificates}: {error.reason or error}") from error
    except OSError as error:
        raise LineLost(f"nobody answers there: {error.strerror or error}") from error


def _flwr_command() -> str:
    found = Path(sys.executable).with_name("flwr")
    command = str(found) if found.exists() else shutil.which("flwr")
    if command is None:
        raise UserError(f"{option('engine')} flower needs flwr; install it with: pip install 'fedpareto[flower]'")
    return command


def _check_temporary_folder() -> None:
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise UserError(
            f"the temporary folder {folder} has too long a name for a socket in it (at most {_LONGEST_FOLDER} bytes); "
            "set TMPDIR to a shorter one"
        )


def _check_security(config: FlowerConfig) -> None:
    certificates = config.root_certificates
    if certificates is None and not config.insecure:
        raise UserError(
            f"{option('engine')} flower needs {option('flower.root-certificates', 'FILE')}, the authority that signed "
            f"the SuperLink's certificate; for a SuperLink without TLS on this host say {option('flower.insecure')}"
        )
    if certificates is not None and config.insecure:
        raise UserError(
            f"{option('flower.insecure')} and {option('flower.root-certificates')} exclude each other; drop one"
        )
    if certificates is not None and not is_file(Path(certificates)):
        raise UserError(
            f"flower.root_certificates is {certificates}, which is no file; give the PEM file of the authority"
        )


def _write_connection(home: Path, config: FlowerConfig) -> None:
    """Write the SuperLink's address in the form that Flower's command reads."""
    home.mkdir()
    security = "insecure = true"
    if config.root_certificates is not None:
        security = f"root-certificates = {json.dumps(str(Path(config.root_certificates).absolute()))}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
        f"address = {json.dumps(config.address)}\n{security}\n",
        encoding="utf-8",
    )


def _complaint(out: str, err: str) -> str | None:
    """Return the error that Flower's command reports, None if it started the run; its exit code is not always right."""
    try:
        answer = parse_json(out, "Flower's answer")
        if answer["success"]:
            return None
        text = str(answer["error-message"])
    except (UserError, TypeError, KeyError):
        text = err or out
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "Flower's command failed without a word"
