"""``node-check`` on machines with every fault: a line that says so with a remedy, and never a traceback."""

import contextlib
import errno
import functools
import importlib.metadata
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from helpers.commands import called, check_refused
from helpers.trust.certificates import Signed, closed_port, http_answer, make, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.preflight import machine_checks
from fedpareto.training.preflight.certificates import authority, node_key
from fedpareto.training.preflight.cli import main
from fedpareto.training.preflight.dry_step import largest_within
from fedpareto.training.preflight.findings import Check, Finding, findings_of, report
from fedpareto.training.preflight.network import reach, split_address
from fedpareto.training.preflight.node import NodeCheckOptions, node_checks, node_settings


class Site(NamedTuple):
    """A machine with everything in order."""

    folder: Path
    ca: Signed
    gateway: Signed
    key: Path
    images: Path


def _write_images(folder: Path, count: int = 12) -> Path:
    for shade, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (9, 9), (80 * shade + number, 50, number)).save(folder / name / f"{number}.png")
    return folder


def _write_node_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    plain = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain))
    path.chmod(0o640)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    ca = make(tmp_path, "ca")
    key = _write_node_key(tmp_path / "node0", ec.generate_private_key(ec.SECP384R1()))
    return Site(tmp_path, ca, make(tmp_path, "gateway", ca), key, _write_images(tmp_path / "images"))


def _options(site: Site, address: str, **changes: object) -> NodeCheckOptions:
    given: dict[str, object] = {
        "superlink": address,
        "root_certificates": str(site.ca.path),
        "auth_supernode_private_key": str(site.key),
        "node_config": f'partition-id=0 data-folder="{site.images}" device="cpu"',
        "batch_size": 4,
        "max_macs": "300K",
        **changes,
    }
    return NodeCheckOptions(**given)  # type: ignore[arg-type]


def _found(site: Site, address: str, but: Sequence[str] = (), **changes: object) -> dict[str, Finding]:
    """Run the checks but for some that take long; return what they found, by what was checked."""
    checks = [check for check in node_checks(_options(site, address, **changes)) if check.what not in but]
    found = findings_of(checks)
    assert all(each.remedy for each in found if each.state != "ok")
    assert len({each.what for each in found}) == len(found)
    return {each.what: each for each in found}


#: Checks that take long, which few tests are about.
_SLOW = ("memory", "dry step", "images")
_STEP = ("dry step",)


def _failed(found: dict[str, Finding]) -> dict[str, str]:
    return {name: each.found for name, each in found.items() if each.state == "failed"}


def test_a_machine_in_order_passes_and_the_command_exits_with_0(site: Site) -> None:
    with serving(site.gateway, http_answer()) as address:
        options = _options(site, address)
        arguments = [
            *("--superlink", address, "--root-certificates", site.ca.path, "--auth-supernode-private-key", site.key),
            *("--node-config", options.node_config, "--batch-size", 4, "--max-macs", "300K"),
        ]
        outcome = called(main, *arguments)
    assert outcome.code == 0, outcome.out
    assert "preflight of this node: all is well" in outcome.out
    for line in (
        "127.0.0.1:",
        "TLSv1.3, its certificate holds until",
        "it answers 404 to who is no node",
        "as the server's, to 2 s",
        "24 images of 2 classes: cat 12, dog 12",
        "all can be decoded",
        "in a network of",
        "node0, secp384r1",
    ):
        assert line in outcome.out


def test_nothing_given_is_nothing_but_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = called(main)
    assert outcome.code == 1
    assert outcome.err == ""
    assert "not given" in outcome.out
    assert "Traceback" not in outcome.out


def test_a_closed_port_is_refused(site: Site) -> None:
    found = _found(site, closed_port(), _SLOW)
    assert "Connection refused" in _failed(found)["address"]
    assert "start the gateway" in found["address"].remedy
    assert _failed(found).keys() == {"address"}


@pytest.mark.parametrize("address", ["nowhere.invalid:9443", "fl.example.org", ":1", "127.0.0.1:0", "127.0.0.1:x", ""])
def test_an_address_that_is_none_is_refused(site: Site, address: str) -> None:
    assert _failed(_found(site, address, _SLOW)).keys() == {"address"}


def test_an_expired_certificate_is_refused_wherever_it_is(site: Site) -> None:
    old = make(site.folder, "old", site.ca, days=(-9, -2))
    with serving(old, http_answer()) as address:
        found = _found(site, address, _SLOW)
    assert "certificate has expired" in _failed(found)["TLS"]
    assert "renewed" in found["TLS"].remedy
    ended = make(site.folder, "ended", days=(-9, -2))
    assert authority(ended.path).state == "failed"
    assert "expired on" in authority(ended.path).found
    assert "holds from" in authority(make(site.folder, "early", days=(2, 9)).path).found
    assert authority(make(site.folder, "soon", days=(-9, 9)).path).state == "warning"


def test_another_authority_another_host_and_no_tls_are_told_apart(site: Site) -> None:
    other = make(site.folder, "other-ca")
    foreign = make(site.folder, "foreign", other)
    elsewhere = make(site.folder, "elsewhere", site.ca, host="192.0.2.7")
    for shown, words, remedy in (
        (foreign, "unable to get local issuer certificate", "fetch ca.crt"),
        (elsewhere, "IP address mismatch", "name the server as its certificate does"),
        (None, "speaks no TLS", "check that the port is the gateway's"),
    ):
        with serving(shown, http_answer()) as address:
            found = _found(site, address, _SLOW)
        assert words in _failed(found)["TLS"]
        assert remedy in found["TLS"].remedy


def test_what_is_no_authority_is_refused(site: Site) -> None:
    assert "no authority" in authority(site.gateway.path).found
    assert "holds no certificate in PEM" in authority(site.key).found
    assert "is no file" in authority(site.folder / "nowhere.crt").found
    assert "is no file" in authority(site.folder).found


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http_answer("200 OK"), "it answers 200 to anyone"),
        (http_answer("415 Unsupported"), "it answers 415 to anyone"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "says nothing over HTTP"),
        (b"", "says nothing over HTTP"),
        (b"\xff\x00HTTP/1.1\r\n", "says nothing over HTTP"),
    ],
    # Answers hold the time, and cases have one name in every process.
    ids=["200", "415", "ssh", "nothing", "bytes"],
)
def test_what_is_no_gateway_is_refused(site: Site, answer: bytes, words: str) -> None:
    with serving(site.gateway, answer) as address:
        found = {each.what: each for each in reach(address, site.ca.path, gateway=True)}
    assert found["gateway"].state == "failed"
    assert words in found["gateway"].found


@pytest.mark.parametrize(
    ("ahead", "state"), [(0.0, "ok"), (-30.0, "failed"), (30.0, "warning"), (299.0, "warning"), (330.0, "failed")]
)
def test_a_clock_that_is_wrong_is_noticed(site: Site, ahead: float, state: str) -> None:
    """The server's clock is ahead of the node's, which is then behind, and may be for five minutes."""
    with serving(site.gateway, http_answer(ahead=ahead)) as address:
        found = {each.what: each for each in reach(address, site.ca.path, gateway=True)}
    assert found["clock"].state == state


@given(
    answer=st.binary(max_size=300), prefix=st.sampled_from([b"", b"HTTP/1.1 404 X\r\n", b"HTTP/1.1 404 X\r\nDate: "])
)
@settings(max_examples=25)
def test_whatever_a_server_says_is_a_finding(
    tmp_path_factory: pytest.TempPathFactory, answer: bytes, prefix: bytes
) -> None:
    del tmp_path_factory
    with serving(None, prefix + answer + b"\r\n\r\n") as address:
        for each in reach(address, None, gateway=True):
            assert each.state == "ok" or each.remedy


def test_a_key_that_others_may_read_and_one_of_another_kind_are_refused(site: Site) -> None:
    for mode in (0o644, 0o604, 0o646):
        site.key.chmod(mode)
        assert f"has mode {mode:04o}: all users may read it" in node_key(site.key).found
        assert node_key(site.key).remedy == f"chmod 600 {site.key}"
    other = _write_node_key(site.folder / "ed", ed25519.Ed25519PrivateKey.generate())
    assert "another kind than a NIST curve" in node_key(other).found
    assert "no OpenSSH key" in node_key(_closed(site.ca.key_path)).found
    assert "is missing" in node_key(site.folder / "nowhere").found
    locked = site.folder / "locked"
    made = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "secret", "-f", str(locked)]
    subprocess.run(made, check=True)
    assert "without a passphrase" in node_key(locked).found


def _closed(path: Path) -> Path:
    path.chmod(0o600)
    return path


def test_a_key_of_the_projects_own_script_is_right(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "deploy" / "make-node-key"
    subprocess.run(["bash", script, tmp_path / "site-a"], check=True, capture_output=True)
    assert node_key(tmp_path / "site-a").state == "ok"


def _no_folder(site: Site) -> None:
    shutil.rmtree(site.images)


def _no_images(site: Site) -> None:
    shutil.rmtree(site.images)
    site.images.mkdir()
    (site.images / "readme.txt").write_text("none")


def _an_empty_class(site: Site) -> None:
    (site.images / "eel").mkdir()


def _a_file(site: Site) -> None:
    _no_folder(site)
    site.images.write_text("a file")


@pytest.mark.parametrize("fault", [_no_folder, _no_images, _an_empty_class, _a_file])
def test_a_folder_without_images_is_a_line(site: Site, fault: Callable[[Site], None]) -> None:
    fault(site)
    found = _found(site, closed_port(), _STEP)
    assert str(site.images) in _failed(found)["images"]


def test_a_folder_of_a_node_is_not_told_the_layout_of_a_data_set_alone(site: Site) -> None:
    _no_folder(site)
    assert "a node's data-folder in FOLDER/CLASS" in _failed(_found(site, closed_port(), _STEP))["images"]


def test_images_are_not_asked_for_before_the_nodes_settings(site: Site) -> None:
    checks = node_checks(NodeCheckOptions(node_config=None))
    (images,) = findings_of(check for check in checks if check.what == "images")
    assert (images.state, images.remedy) == ("failed", "mend node-config first")


def test_images_that_cannot_be_read_are_counted_and_one_is_named(site: Site) -> None:
    (site.images / "cat" / "0.png").write_bytes(b"no picture")
    (site.images / "dog" / "1.png").write_bytes((site.images / "dog" / "1.png").read_bytes()[:40])
    (site.images / "notes.doc").write_text("skipped")
    found = _found(site, closed_port(), _STEP)
    assert "2 images cannot be decoded, such as" in _failed(found)["images read"]
    assert "cat/0.png" in _failed(found)["images read"]
    assert found["files skipped"].state == "warning"


def test_too_few_images_and_one_class_are_noticed(site: Site) -> None:
    assert "a step takes 64" in _failed(_found(site, closed_port(), _STEP, batch_size=64))["images"]
    shutil.rmtree(site.images / "dog")
    assert _found(site, closed_port(), _STEP)["images"].state == "warning"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "partition-id is None"),
        ("partition-id=-1", "partition-id is -1"),
        ("partition-id=0 colour=3", "node-config 'colour' is unknown"),
        ("partition-id=0 data-folder=/data", "cannot be read"),
        ("partition-id=0 partition-id=1", "cannot be read"),
    ],
)
def test_settings_that_are_none_are_a_line(site: Site, text: str, words: str) -> None:
    assert words in _failed(_found(site, closed_port(), _SLOW, node_config=text))["node-config"]


def test_settings_are_read_as_flower_reads_them() -> None:
    parse = pytest.importorskip("flwr.common.config").parse_config_args
    for text in ('partition-id=3 data-folder="/data/our images" device="cuda:0"', "partition-id=0", "a='x y' b=1.5"):
        assert node_settings(text) == parse([text])


@given(st.text(max_size=40))
def test_whatever_settings_are_given_they_are_read_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(UserError):
        node_settings(text)


def test_a_full_disk_is_a_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = functools.partial(shutil._ntuple_diskusage, 10**9, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0))
    assert "0 B free" in _failed(_found(site, closed_port(), _SLOW))["disk"]

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert "No space left on device" in _failed(_found(site, closed_port(), _SLOW))["disk"]


def test_too_little_memory_is_a_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "available_memory", lambda: 10**6)
    assert "1 MB available" in _failed(_found(site, closed_port(), _STEP))["memory"]


def test_packages_that_are_missing_or_of_another_version_are_lines(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("numba", "cryptography"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.9.0" if name == "flwr" else known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = _found(site, closed_port(), _SLOW)
    assert _failed(found).keys() == {"flwr", "cryptography", "address"}
    assert found["flwr"].found.startswith("1.9.0; needed: ")
    assert found["numba"].state == "warning"
    assert found["flwr"].remedy == "pip install 'fedpareto[flower]'"


def test_a_space_or_limits_that_allow_nothing_are_lines(site: Site) -> None:
    assert "dry step" in _failed(_found(site, closed_port(), max_macs="1"))
    assert "nothing-like-it" in _failed(_found(site, closed_port(), space="nothing-like-it"))["space"]


def test_a_round_that_takes_longer_than_it_may_is_a_line(site: Site) -> None:
    found = _found(site, closed_port(), deadline=1.0, epochs=10**6)
    assert "epochs of 24 images" in _failed(found)["dry step"]
    assert "--clients.max-macs" in found["dry step"].remedy


def test_the_largest_network_within_limits_is_taken() -> None:
    space = load_space("mobilenet-tiny")
    whole = largest_within(space, Capability(), 16)
    some = largest_within(space, Capability(macs=1_000_000), 16)
    assert whole is not None
    assert some is not None
    assert whole.macs > 4_000_000
    assert 800_000 < some.macs <= 1_000_000
    assert largest_within(space, Capability(macs=1), 16) is None


@pytest.mark.parametrize(
    "option", [("--batch-size", 1), ("--epochs", 0), ("--deadline", "nan"), ("--max-macs", "many")]
)
def test_options_that_no_run_could_have_are_a_mistake(option: tuple[str, object]) -> None:
    check_refused(called(main, *option), "node-check")


def test_a_check_that_raises_has_failed_and_those_after_it_run(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: Exception) -> Callable[[], Finding]:
        def run() -> Finding:
            raise error

        return run

    errors = [UserError("one"), OSError(13, "Permission denied", "f"), ValueError("two\nlines"), KeyError("three")]
    found = findings_of([Check(str(n), raising(each), "mend it") for n, each in enumerate(errors)])
    assert [each.found for each in found] == [
        "one",
        "f: Permission denied",
        "ValueError: two lines",
        "KeyError: 'three'",
    ]
    assert {each.state for each in found} == {"failed"}
    assert report("all", found) == 1
    assert "4 lines failed" in capsys.readouterr().out
    assert report("all", [Finding("a", "b", "warning", "c")]) == 0
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("a", "b", "warning")


def test_addresses_are_split_as_they_are_written() -> None:
    assert split_address("[::1]:9443") == ("::1", 9443)
    assert split_address("fl.example.org:9443") == ("fl.example.org", 9443)
