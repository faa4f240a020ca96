"""``train-supernet --engine flower --check``: the server's certificates, the SuperLink, the run's place."""

import re
from pathlib import Path

import pytest
from helpers.commands import Outcome, called, check_refused
from helpers.trust.certificates import closed_port, http_answer, make, serving

from fedpareto.training.cli import main

pytest.importorskip("flwr")


def _checked(folder: Path, *arguments: object) -> Outcome:
    outcome = called(main, "--engine", "flower", "--check", "--output", folder / "run", *arguments)
    assert outcome.err == ""
    assert "Traceback" not in outcome.out
    return outcome


def _line(outcome: Outcome, what: str) -> str:
    (line,) = [line for line in outcome.out.splitlines() if re.match(rf"│ {re.escape(what)} +│", line)]
    return " ".join(line.split())


def test_a_server_in_order_passes_and_nothing_is_written(tmp_path: Path) -> None:
    ca = make(tmp_path, "ca")
    superlink = make(tmp_path, "superlink", ca)
    before = sorted(tmp_path.iterdir())
    with serving(superlink, http_answer("200 OK")) as address:
        outcome = _checked(tmp_path, "--flower.address", address, "--flower.root-certificates", ca.path)
    assert outcome.code == 0, outcome.out
    assert "all is well" in outcome.out
    assert "the key of superlink.crt" in _line(outcome, "superlink.key")
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_keys_and_certificates_are_lines(tmp_path: Path) -> None:
    ca, other = make(tmp_path, "ca"), make(tmp_path, "other-ca")
    superlink = make(tmp_path, "superlink", ca, mode=0o644)
    gateway = make(tmp_path, "gateway", other, days=(-9, -1))
    gateway.key_path.write_bytes(superlink.key_path.read_bytes())
    outcome = _checked(tmp_path, "--flower.address", closed_port(), "--flower.root-certificates", ca.path)
    assert outcome.code == 1
    assert "has mode 0644" in _line(outcome, "superlink.key")
    assert "expired on" in _line(outcome, "gateway.crt")
    assert "was not signed by" in _line(outcome, "gateway.crt by")
    assert "is not the key of" in _line(outcome, "gateway.key")
    assert "Connection refused" in _line(outcome, "address")
    assert "start the SuperLink" in _line(outcome, "address")


def test_a_missing_certificate_no_security_and_a_taken_folder_are_lines(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").write_text("there")
    outcome = _checked(tmp_path, "--flower.address", closed_port())
    assert outcome.code == 1
    assert "needs --flower.root-certificates FILE" in _line(outcome, "Flower")
    assert "is not an empty folder" in _line(outcome, "output")
    outcome = _checked(tmp_path, "--flower.root-certificates", tmp_path / "nowhere.crt")
    assert "is no file" in _line(outcome, "authority")
    assert "make it with deploy/make-certificates" in _line(outcome, "authority")


def test_a_list_of_clients_is_read(tmp_path: Path) -> None:
    listed = tmp_path / "clients"
    options = ("--flower.address", closed_port(), "--flower.insecure", "--flower.clients", listed)
    assert "deploy/register-node --clients writes" in _line(_checked(tmp_path, *options), "clients")
    listed.write_text('{"client": 0, "node": "7"}\n{"client": 1, "node": "8"}\n')
    assert "2 clients in" in _line(_checked(tmp_path, *options), "clients")
    listed.write_text('{"client": 0, "node": "7"}\n{"client": 0, "node": "8"}\n')
    assert "client 0 is listed twice" in _line(_checked(tmp_path, *options), "clients")


def test_a_superlink_off_loopback_is_warned_of(tmp_path: Path) -> None:
    outcome = _checked(tmp_path, "--flower.address", "nowhere.invalid:9092", "--flower.insecure")
    assert "warning" in _line(outcome, "exposure")


def test_a_simulation_has_nothing_to_check() -> None:
    line = check_refused(called(main, "--check"), "train-supernet")
    assert "check looks at a federation of real machines" in line
