"""A federation of real processes over Flower: the same bytes as in one process, whoever is killed on the way."""

import dataclasses
import json
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import PATIENCE, finish, start, wait_until
from helpers.runs.federation import finished_run, micro_config, read_metrics
from loopback import Federation, find_nginx

from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.run import RunConfig, write_config
from fedpareto.training.trackers.metrics_file import read_records

_NODES = 2

#: Seconds for a message; a bound: a client that is started, imports torch and trains needs ten, and thirty where the
#: machine is busy. Flower needs up to a minute to notice that a node is gone.
_DEADLINE = 400.0

#: Processes that run one after another, each with cores of its own: see the Makefile.
pytestmark = pytest.mark.federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    nodes = [f"partition-id={client}" for client in range(_NODES)]
    environ = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "FEDPARETO_CACHE_DIR": str(folder / "kept")}
    gateway = find_nginx() is not None
    with Federation(folder / "flower", nodes, gateway=gateway, environ=environ) as started:
        started.wait_until_ready()
        yield started


@pytest.fixture(autouse=True)
def _logs(federation: Federation) -> Iterator[None]:
    """Show with a test that failed what the federation's processes have said."""
    yield
    for name in federation.processes.names:
        print(f"--- {name}\n{federation.processes.log(name)[-3000:]}")
    print(f"--- ServerApps\n{federation.server_log()[-3000:]}")


def _config(folder: Path, federation: Federation, **flower: Any) -> RunConfig:
    settings = {"deadline": _DEADLINE, "patience": _DEADLINE, "quorum": 1.0, **flower}
    return micro_config(
        folder,
        engine="flower",
        rounds=2,
        clients=ClientsConfig(count=_NODES, per_round=_NODES),
        flower=FlowerConfig(federation.address, str(federation.root_certificates), **settings),
    )


def _in_process(folder: Path) -> Path:
    folder.mkdir()
    return finished_run(folder, clients=ClientsConfig(count=_NODES, per_round=_NODES), rounds=2)


def _file(config: RunConfig) -> Path:
    path = Path(str(config.output)).with_suffix(".yaml")
    write_config(path, config)
    return path


def _train(folder: Path, config: RunConfig, *arguments: object) -> subprocess.CompletedProcess[str]:
    return finish("train-supernet", "--config", _file(config), *arguments, cwd=folder)


def _records(run: Path) -> list[dict[str, Any]]:
    """Return the rounds so far; the last line may be half written."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def _supernet_file(run: Path, round_number: int) -> Path:
    return run / "checkpoints" / f"round-{round_number:06d}" / "supernet.safetensors"


def _supernet(run: Path, round_number: int) -> bytes:
    return _supernet_file(run, round_number).read_bytes()


def _client_apps(federation: Federation, node: int) -> set[int]:
    """Return the processes that work on messages of the node."""
    return {pid for pid in federation.processes.pids(f"node{node}") if _has(pid, "cmdline", b"flwr-clientapp")}


def _has(pid: int, file: str, text: bytes) -> bool:
    try:
        return text in Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return False


def _in_mid_round(
    folder: Path, config: RunConfig, federation: Federation, node: int
) -> tuple[subprocess.Popen[str], int]:
    """Start a run; return its process when round 1 is kept and the node works on round 2, and what works there."""
    process = start("train-supernet", "--config", _file(config), cwd=folder)
    wait_until(_supernet_file(Path(str(config.output)), 1).exists, process)
    before = _client_apps(federation, node)
    wait_until(lambda: bool(_client_apps(federation, node) - before), process)
    return process, (_client_apps(federation, node) - before).pop()


@contextmanager
def _other_node(federation: Federation, index: int, **settings: Any) -> Iterator[None]:
    """Replace a node for a while."""
    federation.stop_node(index)
    federation.start_node(index, **settings)
    try:
        federation.wait_until_ready()
        yield
    finally:
        federation.stop_node(index)
        federation.start_node(index)
        federation.wait_until_ready()


def test_the_run_ends_with_the_bytes_of_the_same_run_in_one_process(federation: Federation, tmp_path: Path) -> None:
    config = _config(tmp_path, federation)
    done = _train(tmp_path, config)
    assert done.returncode == 0, done.stderr
    alone = _in_process(tmp_path / "alone")
    run = Path(str(config.output))
    assert _supernet(run, config.rounds) == _supernet(alone, config.rounds)
    records, expected = read_records(run / "metrics.jsonl"), read_metrics(alone)
    assert [record["train_loss"] for record in records] == [record["train_loss"] for record in expected]
    # More than the tensors' values, by no more than headers.
    for record, other in zip(records, expected, strict=True):
        assert record["failures"] == {}
        assert other["bytes_down"] < record["bytes_down"] < other["bytes_down"] + _NODES * 20_000
        assert other["bytes_up"] < record["bytes_up"] < other["bytes_up"] + _NODES * 20_000
    assert all(0 < probe["accuracy"] <= 1 for probe in records[-1]["probes"])
    assert len(records[-1]["probes"]) == len(expected[-1]["probes"])


@pytest.mark.slow
def test_a_searched_subnet_is_calibrated_and_measured_by_the_clients(federation: Federation, tmp_path: Path) -> None:
    config = dataclasses.replace(_config(tmp_path, federation), rounds=1)
    run = Path(str(config.output))
    assert _train(tmp_path, config).returncode == 0
    searched = finish("search-subnet", "--run", run, "--flops-budget", "1M", "--json", cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    report = json.loads(searched.stdout)
    assert report["calibration"]["method"] == "federated"
    assert report["calibration"]["clients"] == _NODES
    assert 0 < report["validation_accuracy"] <= 1
    assert "next: search-subnet" in searched.stderr
    assert "--test" not in searched.stderr
    refused = finish("search-subnet", "--run", run, "--flops-budget", "1M", "--test", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--test needs images on this machine" in refused.stderr


@pytest.mark.slow
def test_a_server_that_is_killed_resumes_to_the_same_bytes(federation: Federation, tmp_path: Path) -> None:
    config = _config(tmp_path, federation)
    run = Path(str(config.output))
    process, _ = _in_mid_round(tmp_path, config, federation, node=0)
    before = set(Path(tempfile.gettempdir()).glob("fedpareto-*/pid"))
    (own,) = (path.parent for path in before if path.read_text() == str(process.pid))
    process.kill()
    process.communicate()
    done = finish("train-supernet", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming after round 1" in done.stderr
    assert not own.exists(), "what a killed command leaves is removed by its ServerApp"
    assert [record["round"] for record in read_records(run / "metrics.jsonl")] == list(range(1, config.rounds + 1))
    assert _supernet(run, config.rounds) == _supernet(_in_process(tmp_path / "alone"), config.rounds)


@pytest.mark.slow
def test_a_node_that_is_killed_costs_its_answer_and_comes_back(federation: Federation, tmp_path: Path) -> None:
    config = dataclasses.replace(_config(tmp_path, federation, quorum=0.5), rounds=1000)
    run = Path(str(config.output))
    process, _ = _in_mid_round(tmp_path, config, federation, node=1)
    federation.stop_node(1, signal.SIGKILL)
    wait_until(lambda: len(_records(run)) > 1, process)
    lost = _records(run)[1]
    outcome = {client["client"]: client for client in lost["clients"]}
    assert outcome[1]["failure"] == "lost"
    assert "loss" in outcome[0]
    assert lost["failures"] == {"lost": 1}
    federation.start_node(1)
    wait_until(lambda: _trained_together(_records(run)[-1]), process)
    _stop(process)


def _trained_together(record: Mapping[str, Any]) -> bool:
    return {client["client"] for client in record["clients"] if "loss" in client} == set(range(_NODES))


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a run to stop, as its user would, at the end of its round."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors


@pytest.mark.slow
def test_a_client_that_is_told_to_end_costs_its_answer_and_its_node_goes_on(
    federation: Federation, tmp_path: Path
) -> None:
    config = dataclasses.replace(_config(tmp_path, federation, quorum=0.5), rounds=1000)
    run = Path(str(config.output))
    process, client_app = _in_mid_round(tmp_path, config, federation, node=1)
    # It has reached our code, which loads torch.
    wait_until(lambda: _has(client_app, "maps", b"libtorch"), process)
    os.kill(client_app, signal.SIGTERM)
    wait_until(lambda: len(_records(run)) > 2 and _trained_together(_records(run)[-1]), process)
    _stop(process)
    outcome = {client["client"]: client.get("reason", "") for client in _records(run)[1]["clients"]}
    assert "the client's process was told to end" in outcome[1]
    assert outcome[0] == ""


@pytest.mark.slow
def test_a_superlink_that_is_killed_and_started_again_keeps_the_run(federation: Federation, tmp_path: Path) -> None:
    config = _config(tmp_path, federation)
    run = Path(str(config.output))
    process, _ = _in_mid_round(tmp_path, config, federation, node=1)
    started = federation.processes.log("superlink").count("Created run")
    federation.restart_superlink()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert federation.processes.log("superlink").count("Created run") == started, "the run went on where it was"
    assert _supernet(run, config.rounds) == _supernet(_in_process(tmp_path / "alone"), config.rounds)


@pytest.mark.slow
def test_a_client_that_hangs_is_ended_and_its_node_serves_the_next_run(federation: Federation, tmp_path: Path) -> None:
    # Whoever opens a pipe that nobody writes waits for ever.
    images = tmp_path / "images" / "zero"
    images.mkdir(parents=True)
    os.mkfifo(images / "image.png")
    config = _config(tmp_path, federation, min_clients=_NODES - 1, deadline=90.0, quorum=0.5)
    with _other_node(federation, 0, config=f'partition-id=0 data-folder="{images.parent}"'):
        done = _train(tmp_path, config)
        assert done.returncode == 0, done.stderr
        records = read_records(Path(str(config.output)) / "metrics.jsonl")
        assert {client["client"] for record in records for client in record["clients"]} == {1}
        federation.processes.wait("node0", lambda: not _client_apps(federation, 0), "the client that hung was ended")


def test_without_the_right_root_certificate_nothing_is_started(federation: Federation, tmp_path: Path) -> None:
    other = tmp_path / "keys"
    other.mkdir(mode=0o700)
    federation.script("make-certificates", other / "new", "127.0.0.1")
    config = _config(tmp_path, federation)
    flower = dataclasses.replace(config.flower, root_certificates=str(other / "new" / "ca.crt"), patience=1.0)
    done = _train(tmp_path, dataclasses.replace(config, flower=flower))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "certificate" in done.stderr.lower()
    assert not Path(str(config.output)).exists()


@pytest.mark.slow
def test_a_squatter_is_named_and_a_second_run_on_the_superlink_refused(federation: Federation, tmp_path: Path) -> None:
    # By the list client 1 is a node that is not there; the one that says it is client 1 is let in for nothing.
    online = federation.online()
    clients = tmp_path / "clients"
    clients.write_text(
        "".join(f'{{"client": {client}, "node": "{node}"}}\n' for client, node in ((0, online["node0"]), (1, 1)))
    )
    config = _config(tmp_path, federation, clients=str(clients), patience=60.0)
    process = start("train-supernet", "--config", _file(config), cwd=tmp_path)
    # It is there for good: the nodes have been asked.
    wait_until(lambda: bool(_client_apps(federation, 0)), process)
    other = tmp_path / "other"
    other.mkdir()
    second = _train(other, dataclasses.replace(_config(other, federation), cache=config.cache, space=config.space))
    assert second.returncode == 2
    assert f"another run (of process {process.pid}) uses the SuperLink at {federation.address}" in second.stderr
    _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    said = f"node {online['node1']} takes no part: it says it is client 1, which by {clients} is node 1's"
    assert said in " ".join(words.split())
    assert stat.S_IMODE((federation.folder / "state.db").stat().st_mode) == 0o600


#: What a node with code of its own might do: fill the server's memory, answer for others.
_EVIL = """
import sys

if any("flwr-clientapp" in argument for argument in sys.orig_argv):
    import fedpareto.training.engines.flower.node as node

    honest = node.answer

    def answer(header, blob, node_config):
        fields, tensors = honest(header, blob, node_config)
        return fields, tensors and tensors + bytes(64 << 20)

    node.answer = answer
"""


@pytest.mark.slow
def test_a_node_that_sends_too_much_is_refused_before_it_is_read(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_EVIL)
    config = dataclasses.replace(_config(tmp_path, federation, quorum=0.5), rounds=1)
    with _other_node(federation, 1, environ={"PYTHONPATH": str(tmp_path)}):
        done = _train(tmp_path, config)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(Path(str(config.output)) / "metrics.jsonl")
    outcome = {client["client"]: client.get("failure") for client in record["clients"]}
    assert outcome == {0: None, 1: "size"}
