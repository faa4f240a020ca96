"""The scripts and files of deploy/: what they write, what they refuse."""

import configparser
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from loopback import HERE, Federation, find_nginx, read_environment

from fedpareto.training.engines.flower.admission import read_clients

SCRIPTS = ["make-certificates", "make-node-key", "make-secret", "make-connection", "make-gateway", "register-node"]


def run(name: str, *arguments: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HERE / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "FLWR_HOME": "", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def succeed(name: str, *arguments: object, cwd: Path) -> None:
    done = run(name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("arguments", [[], ["--help"], ["-a", "b", "c", "d"], [""]])
def test_a_script_explains_itself(tmp_path: Path, name: str, arguments: list[str]) -> None:
    done = run(name, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert name in done.stderr
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["make-certificates", "keys", "fl.example.org", "two words"], "not the name or the address of a host"),
        (["make-certificates", "keys", "-subj"], "not the name or the address of a host"),
        (["make-certificates", "keys", "a,IP:10.0.0.1"], "not the name or the address of a host"),
        (["make-node-key", "missing/node0"], "no folder missing"),
        (["make-secret", "missing/secret"], "no folder missing"),
        (["make-connection", "home", "127.0.0.1"], "not HOST:PORT"),
        (["make-connection", "home", '127.0.0.1:1"', "x"], "not HOST:PORT"),
        (["make-connection", "home", "127.0.0.1:18000", "missing.crt"], "no file missing.crt"),
        (["make-gateway", "keys", "9443", "0.0.0.0:18000"], "listen on loopback only"),
        (["make-gateway", "keys", "9443", "10.0.0.1:18000"], "listen on loopback only"),
        (["make-gateway", "keys", "9443;", "127.0.0.1:18000"], "not PORT or ADDRESS:PORT"),
        (["make-gateway", "keys", "9443", "127.0.0.1:18000"], "holds no ca.crt"),
        (["register-node", "node0.pub"], "no folder with a config.toml"),
    ],
)
def test_a_script_refuses_what_cannot_be_meant(tmp_path: Path, command: list[str], reason: str) -> None:
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == {}


def test_certificates_hold_for_the_hosts_named(tmp_path: Path) -> None:
    succeed("make-certificates", "keys", "fl.example.org", "203.0.113.7", "2001:db8::7", cwd=tmp_path)
    keys = tmp_path / "keys"
    assert sorted(contents(keys)) == [
        "ca.crt", "ca.key", "gateway.crt", "gateway.key", "superlink.crt", "superlink.key"
    ]  # fmt: skip
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    for path in keys.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert alternatives(keys / "gateway.crt") == [
        "DNS:fl.example.org", "IP Address:203.0.113.7", "IP Address:2001:DB8:0:0:0:0:0:7"
    ]  # fmt: skip
    assert alternatives(keys / "superlink.crt")[:2] == ["DNS:localhost", "IP Address:127.0.0.1"]
    for name in ("gateway", "superlink"):
        ssl.create_default_context().load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
        verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(keys / "ca.crt")]
        subprocess.run([*verify, str(keys / f"{name}.crt")], check=True, capture_output=True)


def alternatives(certificate: Path) -> list[str]:
    command = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(certificate)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[1].strip().split(", ")


def test_a_certificate_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    succeed("make-certificates", keys, "old.example.org", cwd=tmp_path)
    before = contents(keys)
    done = run("make-certificates", keys, "new.example.org", cwd=tmp_path)
    assert (done.returncode, "is not replaced" in done.stderr) == (1, True)
    assert contents(keys) == before
    (keys / "gateway.crt").unlink()
    assert "only one of gateway.crt and gateway.key" in run("make-certificates", keys, "b", cwd=tmp_path).stderr
    (keys / "gateway.key").unlink()
    succeed("make-certificates", keys, "new.example.org", cwd=tmp_path)
    after = contents(keys)
    assert {name for name in after if after[name] != before[name]} == {"gateway.crt", "gateway.key"}
    assert alternatives(keys / "gateway.crt") == ["DNS:new.example.org"]


@pytest.mark.parametrize("name", ["make-node-key", "make-secret"])
def test_a_secret_is_its_owners_and_never_replaced(tmp_path: Path, name: str) -> None:
    succeed(name, "it", cwd=tmp_path)
    before = contents(tmp_path)
    assert stat.S_IMODE((tmp_path / "it").stat().st_mode) == 0o600
    done = run(name, "it", cwd=tmp_path)
    assert (done.returncode, "is not replaced" in done.stderr) == (1, True)
    assert contents(tmp_path) == before


def test_a_connection_is_what_flower_reads(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    succeed("make-connection", "open", "127.0.0.1:1", cwd=tmp_path)
    succeed("make-connection", "home", "127.0.0.1:18000", "ca.crt", cwd=tmp_path)
    assert tomllib.loads((tmp_path / "home/config.toml").read_text(encoding="utf-8")) == {
        "superlink": {
            "default": "fedpareto",
            "fedpareto": {"address": "127.0.0.1:18000", "root-certificates": str(tmp_path / "ca.crt")},
        }
    }
    assert tomllib.loads((tmp_path / "open/config.toml").read_text(encoding="utf-8"))["superlink"]["fedpareto"] == {
        "address": "127.0.0.1:1", "insecure": True
    }  # fmt: skip
    assert "is not replaced" in run("make-connection", "home", "127.0.0.1:1", cwd=tmp_path).stderr


def test_a_private_key_is_not_registered(tmp_path: Path) -> None:
    succeed("make-node-key", "node0", cwd=tmp_path)
    succeed("make-connection", "home", "127.0.0.1:1", cwd=tmp_path)
    (tmp_path / "other.pub").write_text("ssh-ed25519 AAAA\n", encoding="utf-8")
    home = str(tmp_path / "home")
    assert "stays on its node" in run("register-node", "node0", cwd=tmp_path, FLWR_HOME=home).stderr
    assert "no public key made by" in run("register-node", "other.pub", cwd=tmp_path, FLWR_HOME=home).stderr
    assert "no file none.pub" in run("register-node", "none.pub", cwd=tmp_path, FLWR_HOME=home).stderr


#: Stands in for Flower's command: lets nodes in by the number in a file, and notes whom it throws out.
_FLWR = """#!/bin/bash
if [[ $2 == register ]]; then
    n=$(cat next); echo $((n + 1)) > next
    printf '{\\n  "success": true,\\n  "node-id": %s\\n}\\n' "$n"
else
    echo "$3" >> out
fi
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A folder with two nodes' keys, a connection and a command that stands in for Flower's."""
    for name in ("a", "b", "c"):
        succeed("make-node-key", name, cwd=tmp_path)
    succeed("make-connection", "home", "127.0.0.1:1", cwd=tmp_path)
    (tmp_path / "next").write_text("18446744073709551613\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "flwr").write_text(_FLWR.replace("18446744073709551613", ""))
    (tmp_path / "bin" / "flwr").chmod(0o700)
    return tmp_path


def register(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return run("register-node", *arguments, cwd=folder, FLWR_HOME=str(folder / "home"), PATH=path)


def test_a_list_of_clients_is_what_train_supernet_reads(registry: Path) -> None:
    (registry / "next").write_text("1000\n")
    for client, name in ((0, "a"), (10, "b")):
        done = register(registry, "--client", client, "--clients", "list", f"{name}.pub")
        assert done.returncode == 0, done.stderr
    assert read_clients(registry / "list") == {0: "1000", 10: "1001"}
    lines = [json.loads(line) for line in (registry / "list").read_text().splitlines()]
    print_of = subprocess.run(
        ["ssh-keygen", "-l", "-f", registry / "a.pub"], capture_output=True, text=True, check=True
    )
    assert lines[0] == {"client": 0, "node": "1000", "key": print_of.stdout.split()[1], "name": "a"}
    # A number that is taken is nobody else's, and nobody is let in for it.
    refused = register(registry, "--client", 0, "--clients", "list", "c.pub")
    assert refused.returncode == 1
    assert "client 0 has a line in list, with node 1000; for a new key of it say --rotate" in refused.stderr
    assert (registry / "next").read_text() == "1002\n"


def test_a_key_is_rotated_and_the_node_of_the_old_one_thrown_out(registry: Path) -> None:
    (registry / "next").write_text("7\n")
    for client, name in ((1, "a"), (11, "b")):
        register(registry, "--client", client, "--clients", "list", f"{name}.pub")
    done = register(registry, "--client", 1, "--clients", "list", "--rotate", "c.pub", "site-c")
    assert done.returncode == 0, done.stderr
    assert read_clients(registry / "list") == {1: "9", 11: "8"}
    assert (registry / "out").read_text() == "7\n"
    unknown = register(registry, "--client", 2, "--clients", "list", "--rotate", "c.pub")
    assert "client 2 has no line in list" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--client", "-1", "--clients", "list"], "not the number of a client"),
        (["--client", "01", "--clients", "list"], "not the number of a client"),
        (["--client", '1, "node": "2"', "--clients", "list"], "not the number of a client"),
        (["--client", "1", "--clients", "missing/list"], "no folder missing"),
        (["--client", "1"], "need both a number and a list"),
        (["--clients", "list"], "need both a number and a list"),
        (["--rotate"], "need both a number and a list"),
        (["--client"], "usage"),
    ],
)
def test_what_cannot_be_listed_is_refused_and_nobody_is_let_in(
    registry: Path, arguments: list[str], words: str
) -> None:
    (registry / "next").write_text("7\n")
    done = register(registry, *arguments, "a.pub")
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert (registry / "next").read_text() == "7\n"
    assert not (registry / "list").exists()
    assert "a name of letters" in register(registry, "--client", 1, "--clients", "list", "a.pub", 'x", "y').stderr


def test_a_key_that_flower_refuses_leaves_the_list_as_it_was(registry: Path) -> None:
    (registry / "bin" / "flwr").write_text("#!/bin/bash\necho '{\"success\": false}'; exit 1\n")
    done = register(registry, "--client", 1, "--clients", "list", "a.pub")
    assert done.returncode == 1
    assert "not registered" in done.stderr
    assert not (registry / "list").exists()


@pytest.mark.slow
@pytest.mark.skipif(not find_nginx(), reason="nginx is not installed: apt-get install nginx-light")
def test_the_gateway_cuts_a_body_that_stays_away_for_twenty_seconds(tmp_path: Path) -> None:
    # No SuperLink is behind it: a body goes there when it is whole.
    federation = Federation(tmp_path / "f", gateway=True)
    federation.keys.mkdir(parents=True, mode=0o700)
    federation.script("make-certificates", federation.keys, "127.0.0.1", "localhost")
    federation.start_gateway()
    host, port = federation.gateway_address.split(":")
    context = ssl.create_default_context(cafile=federation.root_certificates)
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    try:
        with (
            socket.create_connection((host, int(port)), 60) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.sendall(head + bytes(1000))
            time.sleep(3)
            connection.sendall(bytes(1000))
            started = time.monotonic()
            while connection.recv(4096):
                continue
            assert 15 < time.monotonic() - started < 30
    finally:
        federation.close()


@pytest.mark.skipif(not find_nginx(), reason="nginx is not installed: apt-get install nginx-light")
def test_the_gateway_as_filled_in_is_what_nginx_takes(tmp_path: Path) -> None:
    succeed("make-certificates", "keys", "localhost", cwd=tmp_path)
    succeed("make-gateway", "keys", "[::]:9443", "127.0.0.1:18000", cwd=tmp_path)
    text = (tmp_path / "keys/nginx.conf").read_text(encoding="utf-8")
    assert "listen [::]:9443 ssl;" in text
    assert "server 127.0.0.1:18000;" in text
    command = [
        str(find_nginx()),
        "-t",
        "-q",
        "-e",
        "stderr",
        "-p",
        str(tmp_path),
        "-c",
        str(tmp_path / "keys/nginx.conf"),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "is not replaced" in run("make-gateway", "keys", "1", "127.0.0.1:1", cwd=tmp_path).stderr


def units() -> list[Path]:
    return sorted((HERE / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", units(), ids=lambda path: path.name)
def test_a_unit_restarts_for_ever_and_may_do_little(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit, encoding="utf-8")
    service = parser["Service"]
    assert service["Restart"] == "always"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"
    # state.db above all, and what nodes keep of their images.
    assert service["UMask"] == "0077"
    # The ServerApp and train-supernet meet at a socket in a folder that both must see.
    assert (service["PrivateTmp"] == "no") == (unit.stem == "fedpareto-superexec")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    # The packages are not installed where the units expect them, so they are told of commands that are there.
    for unit in units():
        text = re.sub(r"^(Exec\w+=)/\S+", r"\1/bin/true", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.service")))]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "fedpareto" not in checked.stderr


def test_containers_start_what_units_start() -> None:
    services = yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"network", "superlink", "superexec", "gateway", "node"}
    for name in ("superlink", "superexec"):
        unit = (HERE / "systemd" / f"fedpareto-{name}.service").read_text(encoding="utf-8").replace("\\\n", " ")
        start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
        assert options(services[name]["command"]) == options(start)


def test_containers_share_a_network_that_outlives_each_of_them_and_see_their_own_keys_only() -> None:
    services = yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name in ("superlink", "superexec", "gateway"):
        assert services[name]["network_mode"] == "service:network"
    seen = {name: {volume.split(":")[0] for volume in service.get("volumes", [])} for name, service in services.items()}
    assert [name for name in seen if "./keys" in seen[name]] == []
    assert [name for name in seen if "./keys/superlink.key" in seen[name]] == ["superlink"]
    assert [name for name in seen if "./keys/gateway.key" in seen[name]] == ["gateway"]
    assert [name for name in seen if "./keys/superexec-secret" in seen[name]] == ["superlink", "superexec"]
    assert [name for name in seen if any("ca.key" in volume for volume in seen[name])] == []


def test_the_image_holds_nothing_but_the_packages_and_two_scripts() -> None:
    lines = (HERE / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    packages = ["fedpareto", "supernet", "fitness", "cache", "training", "search"]
    scripts = ["deploy/make-connection", "deploy/register-node"]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", *packages, *scripts]
    assert all((HERE.parent / name).exists() for name in copied)
    (entry,) = [line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT ")]
    done = subprocess.run(
        [*json.loads(entry), "bash", "-c", "umask; echo $0 $1", "a b", "c"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0077\na b c\n"


def test_a_node_keeps_its_images_where_its_unit_may_write() -> None:
    unit = (HERE / "systemd/fedpareto-supernode@.service").read_text(encoding="utf-8")
    (kept,) = re.findall(r"FEDPARETO_CACHE_DIR=(\S+)", unit)
    (state,) = re.findall(r"^StateDirectory=.*\b(fedpareto-node/%i)$", unit, flags=re.MULTILINE)
    assert kept.startswith(f"/var/lib/{state}/")


def test_a_superexec_is_not_restarted_with_its_superlink() -> None:
    unit = (HERE / "systemd/fedpareto-superexec.service").read_text(encoding="utf-8")
    assert "Wants=fedpareto-superlink.service\n" in unit
    assert not re.search(r"^(Requires|BindsTo|PartOf)=", unit, flags=re.MULTILINE)


def options(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word.startswith("--")]


def test_nothing_is_reported_and_nothing_is_installed() -> None:
    assert read_environment(HERE / "flower.env") == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }
