"""The line to the ServerApp, and what is checked before there is one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.rules.changes import RESUME_MAY_CHANGE, changed_fields
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.engines.flower import superlink
from fedpareto.training.engines.flower.federation import opened_link
from fedpareto.training.engines.flower.relay_socket import GONE, SOCKET, Line, LineLost
from fedpareto.training.engines.flower.superlink import FlowerLink, check_reachable


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    first, second = (Line(connection) for connection in socket.socketpair())
    yield first, second
    first.close()
    second.close()


@pytest.mark.parametrize(
    "fields",
    [{}, {"do": "nodes"}, {"a": [1, None, {"b": "ä\n\r\u2028\x00\x1b"}]}, {"header": "x" * (1 << 20)}],
    ids=range(4),
)
def test_what_is_written_at_one_end_is_read_at_the_other(ends: tuple[Line, Line], fields: dict[str, Any]) -> None:
    first, second = ends
    # More than the socket's buffer holds.
    writer = threading.Thread(target=first.write, args=(fields,))
    writer.start()
    assert second.read() == fields
    writer.join()
    second.write({"answer": 1})
    assert first.read() == {"answer": 1}


def test_objects_come_in_their_order(ends: tuple[Line, Line]) -> None:
    for number in range(20):
        ends[0].write({"number": number})
    assert [ends[1].read() for _ in range(20)] == [{"number": number} for number in range(20)]


def test_the_end_of_the_other_end_is_none(ends: tuple[Line, Line]) -> None:
    first, second = ends
    first.write({"last": True})
    first.close()
    assert second.read() == {"last": True}
    assert second.read() is None
    assert second.read() is None


def test_half_a_line_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    line = Line(ours)
    theirs.sendall(b'{"do": "no')
    theirs.close()
    assert line.read() is None
    line.close()


def test_writing_to_nobody_is_a_lost_line(ends: tuple[Line, Line]) -> None:
    first, second = ends
    second.close()
    with pytest.raises(LineLost):
        first.write({"a": "x" * 1_000_000})
    # What is left in the buffer hinders nobody.
    first.close()
    first.close()


def test_silence_is_a_lost_line() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    line = Line(ours)
    with pytest.raises(LineLost, match="timed out"):
        line.read()
    with pytest.raises(LineLost):
        line.read()
    line.close()
    theirs.close()


def test_a_line_that_hung_up_holds_no_descriptor() -> None:
    ours, theirs = socket.socketpair()
    Line(ours).close()
    assert ours.fileno() == -1
    assert theirs.recv(1) == b""
    theirs.close()


# Before there is a line.


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where links make their folders; Flower's command seems to be there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "flwr"
    command.write_text("#!/bin/sh\nexit 1\n")
    command.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    return folder


def _certificate(folder: Path) -> str:
    path = folder / 'a "certificate".pem'
    path.write_text("PEM")
    return str(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "--engine flower needs --flower.root-certificates FILE"),
        ({"root_certificates": "CERTIFICATE", "insecure": True}, "exclude each other"),
        ({"root_certificates": "nowhere.pem"}, "flower.root_certificates is nowhere.pem, which is no file"),
        ({"root_certificates": "."}, "flower.root_certificates is ., which is no file"),
    ],
    ids=["none", "both", "missing", "folder"],
)
def test_security_that_is_not_settled_is_an_error_of_one_line(
    folders: Path, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    if fields.get("root_certificates") == "CERTIFICATE":
        fields = {**fields, "root_certificates": _certificate(tmp_path)}
    with pytest.raises(UserError) as caught:
        FlowerLink(FlowerConfig(**fields), "test")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(folders.iterdir()) == []


def test_without_flower_its_package_is_named_and_nothing_is_left_behind(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError) as caught:
        FlowerLink(FlowerConfig(insecure=True), "test")
    assert str(caught.value) == "--engine flower needs flwr; install it with: pip install 'fedpareto[flower]'"
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("insecure", [True, False])
def test_the_superlinks_address_is_written_for_flower_and_removed_in_the_end(
    folders: Path, tmp_path: Path, insecure: bool
) -> None:
    import tomllib

    certificates = None if insecure else _certificate(tmp_path)
    config = FlowerConfig(address="host.example:1234", root_certificates=certificates, insecure=insecure)
    link = FlowerLink(config, "test")
    (folder,) = folders.iterdir()
    assert folder == link.folder
    assert folder.stat().st_mode & 0o077 == 0
    written = tomllib.loads((folder / "flwr" / "config.toml").read_text())["superlink"]
    security = {"insecure": True} if insecure else {"root-certificates": certificates}
    assert written == {"default": "federation", "federation": {"address": "host.example:1234", **security}}
    link.close()
    link.close()
    assert list(folders.iterdir()) == []


def test_a_simulated_run_has_no_link_and_a_connected_one_closes_its_own(folders: Path) -> None:
    with opened_link(RunConfig()) as link:
        assert link is None
    with opened_link(RunConfig(engine="flower", flower=FlowerConfig(insecure=True))) as link:
        assert link is not None
        assert len(list(folders.iterdir())) == 1
    assert list(folders.iterdir()) == []


def _flwr(folders: Path, script: str) -> None:
    (folders.parent / "bin" / "flwr").write_text(f"#!/bin/sh\n{script}\n")


@pytest.fixture
def listening() -> Iterator[FlowerConfig]:
    """Yield the configuration of a SuperLink where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield FlowerConfig(f"127.0.0.1:{server.getsockname()[1]}", insecure=True)


def test_where_nobody_listens_no_run_is_submitted(folders: Path) -> None:
    _flwr(folders, "touch submitted")
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    link = FlowerLink(FlowerConfig(f"127.0.0.1:{free}", insecure=True), "test")
    with pytest.raises(LineLost, match="nobody answers there: Connection refused"):
        link.nodes()
    link.close()


def test_a_superlink_without_tls_or_a_file_that_is_no_certificate_is_named(
    folders: Path, listening: FlowerConfig, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    config = FlowerConfig(listening.address, str(tmp_path / "ca.crt"))
    with pytest.raises(LineLost, match=f"no TLS is possible with it and {tmp_path / 'ca.crt'}"):
        check_reachable(config)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (r"""printf %s '{"success": false, "error-message": "odd\nNo such host"}'; exit 1""", "No such host"),
        ("""echo '{"success": false, "error-message": "refused"}'""", "refused"),
        ("echo one >&2; echo two >&2; exit 2", "two"),
        ("echo '[1]'; exit 1", "[1]"),
        ("exit 3", "Flower's command failed without a word"),
    ],
    ids=range(5),
)
def test_a_superlink_that_takes_no_run_is_a_lost_line_in_its_words(
    folders: Path, listening: FlowerConfig, script: str, words: str
) -> None:
    _flwr(folders, script)
    link = FlowerLink(listening, "test")
    for _ in range(2):
        with pytest.raises(LineLost) as caught:
            link.nodes()
        assert str(caught.value) == words
    link.close()


def test_a_command_that_takes_long_is_not_called_a_superlink_that_is_not_there(
    folders: Path, listening: FlowerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert superlink._SUBMISSION > 120
    monkeypatch.setattr(superlink, "_SUBMISSION", 0.2)
    _flwr(folders, "exec sleep 60")
    link = FlowerLink(listening, "test")
    with pytest.raises(LineLost, match="it answers, but Flower's command has not submitted the run within"):
        link.nodes()
    link.close()


def test_of_two_runs_on_one_superlink_the_second_is_refused_and_told_of_the_first(
    folders: Path, listening: FlowerConfig
) -> None:
    _flwr(folders, "exit 3")
    port = listening.address.rpartition(":")[2]
    first, second = FlowerLink(listening, "test"), FlowerLink(FlowerConfig(f"localhost:{port}", insecure=True), "test")
    # It keeps it, also while it submits its run anew.
    for _ in range(2):
        with pytest.raises(LineLost, match="failed without a word"):
            first.nodes()
    with pytest.raises(UserError) as caught:
        second.nodes()
    assert f"another run (of process {os.getpid()}) uses the SuperLink at localhost:{port}; wait" in str(caught.value)
    assert "\n" not in str(caught.value)
    first.close()
    with pytest.raises(LineLost, match="failed without a word"):
        second.nodes()
    second.close()


def test_a_run_that_is_killed_claims_its_superlink_no_more(listening: FlowerConfig) -> None:
    claim = f"claimed({listening.address!r})"
    code = (
        f"from fedpareto.training.engines.flower.superlink import claimed; c = {claim}; print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.read(1)
        with pytest.raises(UserError, match=f"of process {other.pid}"):
            superlink.claimed(listening.address)
        other.kill()
    superlink.claimed(listening.address).close()


#: Stands in for ``flwr run``: calls at the socket that it was given and answers one request, then hangs up.
_CALLER = """
import json, socket, sys
folder = json.loads(sys.argv[sys.argv.index("--run-config") + 1].removeprefix("line="))
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(folder + "/%s")
    file = connection.makefile("rwb")
    asked = json.loads(file.readline())
    file.write(json.dumps({"nodes": [asked["do"]], "message": asked.get("ttl")}).encode() + b"\\n")
    file.flush()
"""


def test_a_link_connects_when_it_is_first_used_and_anew_after_it_was_lost(
    folders: Path, listening: FlowerConfig, tmp_path: Path
) -> None:
    interpreter = Path(sys.base_prefix) / "bin" / "python3"
    caller = tmp_path / "caller.py"
    caller.write_text(_CALLER % SOCKET)
    # The ServerApp is another process than the command that submitted it.
    started = """echo '{"success": true}'"""
    _flwr(folders, f'echo run >> {tmp_path}/runs; {started}; {interpreter} {caller} "$@" >/dev/null 2>&1 &')
    link = FlowerLink(listening, "test")
    assert not (tmp_path / "runs").exists()
    assert link.nodes() == ["nodes"]
    with pytest.raises(LineLost):
        link.nodes()
    # A message lives longer than its client has time, so that an answer in time arrives.
    message: Any = link.send("1", "train", b"{}", None, 30.0)
    assert message == 150.0
    with pytest.raises(LineLost):
        link.collect({message: 1000})
    # Another line is another run of Flower's, which does not know the message.
    assert link.collect({message: 1000})[message].error == GONE
    assert (tmp_path / "runs").read_text() == "run\n" * 2
    link.close()
    assert list(folders.iterdir()) == []


# The configuration.

_OTHER = FlowerConfig("host:1", "ca.crt", True, 2, 5.0, 6.0, 0.75, 7, "bf16", "list", 9, 2.0, 7)


def test_a_configuration_of_flower_comes_back_from_its_values() -> None:
    config = RunConfig(engine="flower", flower=_OTHER)
    mapping = json.loads(json.dumps(config_to_mapping(config)))
    assert from_mapping(RunConfig, mapping, "config.yaml") == config
    for name, value in mapping["flower"].items():
        assert value != config_to_mapping(RunConfig())["flower"][name], name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "localhost"), ("address", ":8000"), ("address", "host:"), ("address", "host:0"),
        ("address", "host:65536"), ("address", "host:http"), ("address", "host:-1"), ("address", ""),
        ("address", "host:²"),
        ("patience", 0.0), ("patience", -1.0), ("patience", float("nan")), ("patience", float("inf")),
        ("deadline", 0.0), ("deadline", float("nan")), ("deadline", float("inf")), ("deadline", "soon"),
        ("quorum", 0.0), ("quorum", 1.01), ("quorum", float("nan")), ("quorum", -0.5),
        ("retries", -1), ("retries", 0.5), ("min_clients", 0), ("min_clients", 21), ("wire_dtype", "fp16"),
        ("insecure", "perhaps"), ("max_examples", 0), ("max_examples", (1 << 30) + 1), ("max_ratio", 0.5),
        ("max_ratio", float("inf")), ("max_classes", 0), ("max_classes", 100_001),
    ],
)  # fmt: skip
def test_a_bad_value_is_an_error_of_one_line_that_names_the_field(name: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        from_mapping(RunConfig, {"flower": {name: value}}, "config.yaml")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_the_message_says_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"flower\.address is 'x'; it must be host:port, e\.g\. 127\.0\.0\.1:8000"):
        FlowerConfig(address="x")
    with pytest.raises(UserError, match=r"flower\.quorum is 2; it must be above 0 and at most 1"):
        FlowerConfig(quorum=2)
    with pytest.raises(UserError, match=r"flower\.min_clients is 3, more than the 2 of clients\.count"):
        RunConfig(clients=ClientsConfig(count=2, per_round=1), flower=FlowerConfig(min_clients=3))


def test_the_least_and_the_most_are_allowed() -> None:
    FlowerConfig(address="[::1]:1", quorum=1.0, retries=0, min_clients=1, patience=0.001, deadline=0.001)
    FlowerConfig(address="host:65535", quorum=0.001)


def test_a_resumed_run_may_change_its_superlink_but_not_its_engine() -> None:
    before = config_to_mapping(RunConfig(engine="flower"))
    after = config_to_mapping(RunConfig(engine="flower", flower=_OTHER))
    assert [name for name, _, _ in changed_fields(before, after)] == ["flower.wire_dtype"]
    assert [name for name, _, _ in changed_fields(config_to_mapping(RunConfig()), before)] == ["engine"]
    assert all(name.count(".") <= 1 for name in RESUME_MAY_CHANGE)


def test_a_temporary_folder_too_long_for_a_socket_is_named(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _flwr(folders, "exit 0")
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 90)
    with pytest.raises(UserError, match="set TMPDIR to a shorter one"):
        FlowerLink(FlowerConfig(insecure=True), "test")
