"""The gateway in front of a SuperLink: nodes come through it, and nothing else does."""

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest
from guarded import PATIENCE
from loopback import HERE, Federation, find_nginx, free_port

pytestmark = [
    pytest.mark.federation,
    pytest.mark.slow,
    pytest.mark.skipif(not find_nginx(), reason="nginx is not installed: apt-get install nginx-light"),
]

UNREGISTERED, KEYLESS, MISLED = 1, 2, 3

#: An app that asks the one node which partition it has.
PYPROJECT = """
[project]
name = "question"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "question:server"
clientapp = "question:client"
[tool.flwr.app.config]
"""
APP = """
import time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
server = ServerApp()
client = ClientApp()

@server.main()
def main(grid, context):
    node, = grid.get_node_ids()
    ids = grid.push_messages([Message(RecordDict(), node, "query")])
    answers = []
    while not answers:
        time.sleep(0.2)
        answers = list(grid.pull_messages(ids))
    if answers[0].content["answer"]["partition"] != 7:
        raise ValueError("another node answered")

@client.query()
def answer(message, context):
    answer = ConfigRecord({"partition": context.node_config["partition-id"]})
    return Message(RecordDict({"answer": answer}), reply_to=message)
"""

#: Spellings of a path that one reader may take for the fleet's and another for the control API's.
AMBIGUOUS = [
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/../../v1/control/list-runs",
    "/v1/control/list-runs?/v1/fleet/pull-messages",
    "/v1/control/list-runs%3f/../../fleet/",
    "/v1/fleet//../control/list-runs",
    "/v1/fleet/%0a/v1/control/list-runs",
    "/v1/fleet/",
    "/v1/fleet",
    "/v1/fleetx/pull-messages",
    "/V1/CONTROL/list-runs",
    "//v1/control/list-runs",
    "https://localhost/v1/control/list-runs",
]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    with Federation(folder, ["partition-id=7"]) as running:
        # Nodes that are to be refused start now, as each takes seconds.
        subprocess.run([HERE / "make-certificates", folder / "others", "127.0.0.1"], check=True, capture_output=True)
        running.start_node(UNREGISTERED, config="partition-id=1")
        running.start_node(KEYLESS, config="partition-id=2", anonymous=True)
        running.start_node(MISLED, config="partition-id=3", root_certificates=folder / "others" / "ca.crt")
        running.wait_until_ready()
        yield running
        started = [pid for name in running.processes.names for pid in running.processes.pids(name)]
        assert len(running.processes.pids("node0")) > 1  # a SuperNode has a SuperExec of its own
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []


def ask(
    federation: Federation,
    address: str,
    path: str,
    method: str = "POST",
    *,
    body: bytes = b"",
    trusted: Path | None = None,
) -> int:
    """Send one request, its path as it is, and return the status of the answer."""
    host, port = address.split(":")
    context = ssl.create_default_context(cafile=trusted or federation.root_certificates)
    connection = HTTPSConnection(host, int(port), timeout=PATIENCE, context=context)
    try:
        connection.putrequest(method, path, skip_host=False)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


def routes(federation: Federation) -> list[tuple[str, str]]:
    """Return method and path of all that the running SuperLink serves, as it says itself."""
    context = ssl.create_default_context(cafile=federation.root_certificates)
    with urllib.request.urlopen(f"https://{federation.address}/openapi.json", context=context) as answer:
        paths = json.load(answer)["paths"]
    served = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [*served, ("GET", "/docs"), ("GET", "/openapi.json")]


def flwr(federation: Federation, home: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = federation.environment()
    if home:
        environment["FLWR_HOME"] = str(home)
    return subprocess.run(
        ["flwr", *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def online_until(federation: Federation) -> float:
    """Return the time until which node0 counts as online if it says nothing more."""
    with federation.control() as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return max(float(node.online_until) for node in nodes if node.name == "node0")


def runs(federation: Federation) -> list[str]:
    """Return how every run of the federation stands."""
    with federation.control() as client:
        states = [run.status for run in client.ListRuns(ListRunsRequest()).run_dict.values()]
    return [f"{state.status} {state.sub_status} {state.details}".strip() for state in states]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        pytest.param(UNREGISTERED, "Failed to activate SuperNode", id="unregistered key"),
        pytest.param(KEYLESS, "All SuperNodes must be registered", id="no key"),
        pytest.param(MISLED, "CERTIFICATE_VERIFY_FAILED", id="another authority"),
    ],
)
def test_a_node_that_may_not_join_ends_and_says_why(federation: Federation, node: int, reason: str) -> None:
    assert federation.processes.ended(f"node{node}") != 0
    log = federation.processes.log(f"node{node}")
    assert reason in log
    assert "SuperNode ID" not in log
    assert "Traceback" not in log
    assert list(federation.online()) == ["node0"]


def test_the_gateway_passes_what_nodes_need_and_nothing_else(federation: Federation) -> None:
    served = routes(federation)
    assert {path.split("/")[2] for _, path in served if path.startswith("/v1/")} == {"control", "fleet", "runtime"}
    for method, path in served:
        # Without a protobuf body the SuperLink refuses what it serves; 404 is for what it does not.
        assert ask(federation, federation.address, path, method) != 404, path
        assert (ask(federation, federation.gateway_address, path, method) == 404) != path.startswith("/v1/fleet/"), path


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_no_spelling_of_a_path_gets_past_the_gateway(federation: Federation, path: str) -> None:
    # 400 is nginx's answer to a path that leaves the root or holds control characters.
    assert ask(federation, federation.gateway_address, path) in {400, 404}


def test_a_line_feed_after_a_path_is_not_passed_on(federation: Federation) -> None:
    # The SuperLink would answer 400 to a request line that is broken in two.
    assert ask(federation, federation.gateway_address, "/v1/fleet/pull-messages%0a") == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"])
def test_the_gateway_takes_no_other_method(federation: Federation, method: str) -> None:
    # TRACE and CONNECT are nginx's own business: it knows neither.
    assert ask(federation, federation.gateway_address, "/v1/fleet/pull-messages", method) in {400, 404, 405}


def test_the_gateway_bounds_what_it_takes(federation: Federation) -> None:
    piece = bytes(6 << 20)  # Flower sends arrays in pieces of 5 MB
    assert ask(federation, federation.gateway_address, "/v1/fleet/push-object", body=piece) == 415
    assert ask(federation, federation.gateway_address, "/v1/fleet/push-object", body=piece * 3) == 413


def test_the_gateway_talks_to_nobody_else_than_the_superlink(federation: Federation) -> None:
    # A gateway whose authority is another one than the SuperLink's.
    others, address = federation.folder / "others", f"127.0.0.1:{free_port()}"
    federation.script("make-gateway", others, address, federation.address)
    federation.start_nginx("stranger", others, address)
    assert ask(federation, address, "/v1/fleet/pull-messages", trusted=others / "ca.crt") == 502
    assert "certificate verify" in federation.processes.log("stranger")


def test_runs_are_started_beside_the_superlink_only(federation: Federation, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (app / "question.py").write_text(APP, encoding="utf-8")
    (app / "README.md").write_text("A question.\n", encoding="utf-8")
    outside = tmp_path / "outside"
    federation.script("make-connection", outside, federation.gateway_address, federation.root_certificates)
    for command in (["run", str(app), "fedpareto"], ["list", "fedpareto"], ["stop", "1", "fedpareto"]):
        done = flwr(federation, outside, *command)
        assert done.returncode != 0, command
        assert "404" in done.stdout + done.stderr, command
    assert runs(federation) == []

    started = flwr(federation, None, "run", str(app), "fedpareto", "--format", "json")
    assert json.loads(started.stdout)["success"], started.stdout + started.stderr
    federation.processes.wait("superexec", lambda: runs(federation)[0].startswith("finished"), "the run ended")
    assert runs(federation) == ["finished completed"]


def test_a_node_is_registered_by_the_script(federation: Federation) -> None:
    federation.processes.ended(f"node{UNREGISTERED}")  # its first try
    key = federation.node_key(UNREGISTERED)
    federation.script("register-node", key.with_suffix(".pub"), "late")
    federation.start_node(UNREGISTERED, config="partition-id=1")
    federation.wait_until_ready(2)
    node = federation.online()["late"]
    assert flwr(federation, None, "supernode", "unregister", str(node), "fedpareto").returncode == 0
    # What was let in is out again, at its next word.
    federation.processes.ended(f"node{UNREGISTERED}")
    assert list(federation.online()) == ["node0"]


def test_a_killed_superlink_comes_back_with_its_nodes(federation: Federation) -> None:
    before = federation.online()
    federation.restart_superlink()
    assert federation.online() == before
    assert federation.processes.running("node0")


def test_a_node_stays_connected_through_the_gateway(federation: Federation) -> None:
    until = online_until(federation)
    federation.processes.wait("node0", lambda: online_until(federation) > until, "its heartbeat came")
    assert federation.processes.log("node0").count("SuperNode ID") == 1
