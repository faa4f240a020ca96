"""A federation of real Flower processes on this machine: for tests, the demo and benchmarks.

    with Federation(folder, ["partition-id=0", "partition-id=1"]) as federation:
        federation.wait_until_ready()
        subprocess.run(["train-supernet", "--flower.address", federation.address, ...])

It is the deployment of README.md on free ports, made by the same scripts: TLS, registered nodes, a database, a
SuperExec beside the SuperLink, nodes that come through the gateway. All processes end with the block, and also when
this one is killed. Needs Linux, this folder (so a checkout), the packages with their extra ``flower``, openssl,
ssh-keygen and, for a gateway, nginx.
"""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from guarded import GuardedProcesses

HERE = Path(__file__).resolve().parent


class Federation:
    """SuperLink, SuperExec, gateway and SuperNodes on loopback.

    Processes are called ``superlink``, ``superexec``, ``gateway`` and ``node0``, ``node1``, …; see ``processes`` to
    send them signals and to read their logs.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[str] = (),
        *,
        secure: bool = True,
        gateway: bool = True,
        database: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Choose ports; nothing is written or started yet.

        Args:
            folder: where keys, logs and state are written; made if it is missing, not removed.
            nodes: the ``--node-config`` of every SuperNode.
            secure: TLS, and only registered nodes may join.
            gateway: nodes come through nginx; needs ``secure``.
            database: the SuperLink keeps its state in a file, so that it outlives the process.
            environ: more environment of every process.
        """
        if gateway and not secure:
            raise ValueError("the gateway needs a federation with TLS: secure=True")
        self.folder = folder.resolve()
        self.nodes = list(nodes)
        self.secure, self.gateway, self.database = secure, gateway, database
        self.keys = self.folder / "keys"
        self.address = f"127.0.0.1:{free_port()}"
        self.gateway_address = f"127.0.0.1:{free_port()}" if gateway else ""
        self.secret = self.keys / "superexec-secret"
        self.processes = GuardedProcesses(self.folder, {**read_environment(HERE / "flower.env"), **(environ or {})})

    @property
    def root_certificates(self) -> Path | None:
        """The certificate that SuperLink and gateway are verified with."""
        return self.keys / "ca.crt" if self.secure else None

    def __enter__(self) -> Self:
        """Start everything, and end it again if something does not start."""
        try:
            self._prepare()
            self.start_superlink()
            if self.gateway:
                self.start_gateway()
            self.start_superexec()
            for index in range(len(self.nodes)):
                if self.secure:
                    self.register(self.node_key(index).with_suffix(".pub"), f"node{index}")
                self.start_node(index)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        self.close()

    def close(self) -> None:
        """End every process that runs, and wait until all have ended."""
        names = self.processes.names
        # Nodes first: they say goodbye to a SuperLink that still listens.
        self.processes.close(name for name in names if name.startswith("node"))
        self.processes.close(names)

    def start_superlink(self) -> None:
        """Start the SuperLink, also once more on the same address, and wait until it answers."""
        host, port = self.address.split(":")
        command = ["flower-superlink", "--host", host, "--port", port, "--isolation", "process"]
        command += ["--superexec-auth-secret-file", str(self.secret)]
        if self.database:
            command += ["--database", str(self.folder / "state.db")]
        if self.secure:
            command += ["--enable-supernode-auth", "--ssl-ca-certfile", str(self.keys / "ca.crt")]
            command += ["--ssl-certfile", str(self.keys / "superlink.crt")]
            command += ["--ssl-keyfile", str(self.keys / "superlink.key")]
        else:
            command.append("--insecure")
        self.processes.start("superlink", command)
        trusted = self.root_certificates
        self.processes.wait("superlink", lambda: answers(self.address, trusted), f"it answered at {self.address}")

    def restart_superlink(self) -> None:
        """Kill the SuperLink as a power cut does, and start it again."""
        self.processes.kill("superlink", signal.SIGKILL)
        self.start_superlink()

    def start_superexec(self) -> None:
        """Start the SuperExec, which starts the ServerApp of a run."""
        command = ["flower-superexec", "--runtime-api-address", self.address, *self._trust(self.root_certificates)]
        self.processes.start("superexec", [*command, "--superexec-auth-secret-file", str(self.secret)])

    def start_gateway(self) -> None:
        """Start the gateway, and wait until it answers."""
        if not (self.keys / "nginx.conf").exists():
            self.script("make-gateway", self.keys, self.gateway_address, self.address)
        self.start_nginx("gateway", self.keys, self.gateway_address)

    def start_nginx(self, name: str, folder: Path, address: str) -> None:
        """Start nginx with the configuration in ``folder``, and wait until it answers."""
        state = self.folder / f"{name}-state"
        state.mkdir(exist_ok=True)
        command = [find_nginx() or "nginx", "-e", "stderr", "-p", str(state), "-c", str(folder / "nginx.conf")]
        # As root nginx would become somebody who may not enter the folder.
        self.processes.start(name, [*command, "-g", "user root;"] if os.geteuid() == 0 else command)
        self.processes.wait(name, lambda: answers(address, folder / "ca.crt"), f"it answered at {address}")

    def start_node(
        self,
        index: int,
        *,
        config: str | None = None,
        key: Path | None = None,
        anonymous: bool = False,
        root_certificates: Path | None = None,
        address: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start SuperNode ``index``, as it was announced or differently; it connects in its own time.

        Args:
            index: its place in ``nodes``, or one beyond them with a ``config``; its name is ``node{index}``.
            config: another ``--node-config``.
            key: another private key.
            anonymous: no key at all.
            root_certificates: another certificate to trust.
            address: another address to connect to.
            environ: more environment of this node.
        """
        command = ["flower-supernode", "--superlink", address or self.gateway_address or self.address]
        command += self._trust(root_certificates or self.root_certificates)
        command += ["--port", str(free_port())]
        if self.secure and not anonymous:
            command += ["--auth-supernode-private-key", str(key or self.node_key(index))]
        command += ["--node-config", self.nodes[index] if config is None else config]
        self.processes.start(f"node{index}", command, environ)

    def stop_node(self, index: int, number: int = signal.SIGTERM) -> None:
        """End SuperNode ``index``: by SIGTERM it says goodbye, by SIGKILL it is gone with all it started."""
        self.processes.kill(f"node{index}", number)

    def node_key(self, index: int) -> Path:
        """Return the private key of SuperNode ``index``, made when it is first asked for."""
        key = self.keys / f"node{index}"
        if not key.exists():
            self.script("make-node-key", key)
        return key

    def register(self, public_key: Path, name: str) -> int:
        """Let the owner of a public key in; return its node id. What ``register-node`` does, without its 3 s."""
        from flwr.cli.supernode.register import try_load_public_key  # noqa: PLC0415 - slow to import

        with self.control() as client:
            return client.RegisterNode(
                RegisterNodeRequest(public_key=try_load_public_key(public_key), name=name)
            ).node_id

    def online(self) -> dict[str, int]:
        """Return the ids of the nodes that the SuperLink counts as online, by name or, without one, by id."""
        with self.control() as client:
            nodes = client.ListNodes(ListNodesRequest()).nodes_info
        return {node.name or str(node.node_id): node.node_id for node in nodes if node.status == "online"}

    def server_log(self) -> str:
        """Return what the ServerApps of all runs have printed; the SuperLink keeps it in its database."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'state.db'}?mode=ro", uri=True)) as connection:
            return "".join(text for (text,) in connection.execute("SELECT log FROM task_logs ORDER BY timestamp"))

    def wait_until_ready(self, count: int | None = None) -> None:
        """Wait until ``count`` nodes, by default all that were announced, are online."""
        wanted = len(self.nodes) if count is None else count
        self.processes.wait("superlink", lambda: len(self.online()) >= wanted, f"{wanted} nodes were online")

    def control(self) -> ControlHttpClient:
        """Return a client of the SuperLink's control API; close it after use."""
        return ControlHttpClient.from_server_address(
            self.address,
            insecure=not self.secure,
            root_certificates=self.root_certificates.read_bytes() if self.root_certificates else None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="CLI")],
        )

    def environment(self) -> dict[str, str]:
        """Return the environment in which ``flwr`` finds the SuperLink as the connection ``fedpareto``."""
        return self.processes.environment("cli")

    def script(self, name: str, *arguments: object) -> None:
        """Run a script of this folder."""
        done = subprocess.run(
            [str(HERE / name), *map(str, arguments)],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stdout}{done.stderr}")

    def _prepare(self) -> None:
        """Write keys and certificates, and where flwr finds the SuperLink."""
        self.keys.mkdir(parents=True, mode=0o700)
        if self.secure:
            self.script("make-certificates", self.keys, "127.0.0.1", "localhost")
        self.script("make-secret", self.secret)
        trusted = [self.root_certificates] if self.root_certificates else []
        self.script("make-connection", self.environment()["FLWR_HOME"], self.address, *trusted)

    def _trust(self, root_certificates: Path | None) -> list[str]:
        return ["--root-certificates", str(root_certificates)] if root_certificates else ["--insecure"]


def find_nginx() -> str | None:
    """Return nginx's command; Debian has it where users other than root do not look."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables of an environment file as systemd reads it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def answers(address: str, root_certificates: Path | None) -> bool:
    """Whether an HTTP server, verified with ``root_certificates`` if there are any, answers there at all."""
    host, port = address.split(":")
    connection = HTTPConnection(host, int(port), timeout=5)
    if root_certificates:
        context = ssl.create_default_context(cafile=root_certificates)
        connection = HTTPSConnection(host, int(port), timeout=5, context=context)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
