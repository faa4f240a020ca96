"""A run whose wandb is away, hangs or fails: on sockets of this machine, and with a wandb that does as a test says."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.runs.trackers import alone, record

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.tracking import TrackingConfig
from fedpareto.training.trackers.wandb import WandbTracker, check_environment, require_login

#: A bound on what takes a few seconds; no expectation.
_LONG = 120.0

_WANDB = """
import time

class Settings:
    def __init__(self, **fields): pass

class Histogram:
    MAX_LENGTH = 512
    def __init__(self, **fields): pass

class Run:
    id = "fake"
    def log(self, values, step): act("log")
    def finish(self): act("finish")

def act(place):
    if place == {place!r}:
        {what}

def login(**options):
    act("login")
    return False

def init(**options):
    act("init")
    return Run()
"""


def _faked(monkeypatch: pytest.MonkeyPatch, folder: Path, place: str, what: str) -> None:
    """Put a wandb in the way of the true one that does ``what`` at a ``place``."""
    package = folder / "fake" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_WANDB.format(place=place, what=what))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), *filter(None, sys.path)]))


def _tracker(folder: Path, mode: str = "auto", patience: float = _LONG) -> WandbTracker:
    return WandbTracker(folder, "mine", "tests", mode, {}, "abc", patience=patience)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["login", "init", "log", "finish"])
@pytest.mark.parametrize("what", ["raise RuntimeError('it broke\\nin two lines')", "import os; os._exit(1)"])
def test_what_wandb_raises_is_one_remark_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str, what: str
) -> None:
    _faked(monkeypatch, tmp_path, place, what)
    tracker = _tracker(tmp_path)
    for number in (1, 2, 3):
        tracker.round_done(record(number, evaluated=False))
    tracker.close()
    told = [line for line in capfd.readouterr().err.splitlines() if "wandb" in line and "wandb ran offline" not in line]
    assert len(told) == 1
    if place == "login" and "Runtime" in what:
        # Of a login that fails a run that is offline has no need.
        assert told[0] == "wandb goes offline: it broke; metrics.jsonl has all rounds"
        return
    assert told[0].startswith("wandb failed (it broke)" if "Runtime" in what else "wandb has ended by itself")
    assert told[0].endswith("; the run goes on without it; metrics.jsonl has all rounds")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["login", "init", "log", "finish"])
def test_a_wandb_that_hangs_delays_no_round_and_the_end_by_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    _faked(monkeypatch, tmp_path, place, "time.sleep(1e6)")
    tracker = _tracker(tmp_path, patience=1.5)
    # Far more than a pipe holds.
    started = time.monotonic()
    for number in range(1, 300):
        tracker.round_done(record(number, trained=tuple(range(200)), evaluated=False))
    tracker.close()
    assert time.monotonic() - started < _LONG
    assert "wandb has not sent all in time; send the rest with: wandb sync" in capfd.readouterr().err


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def _nobody() -> Iterator[int]:
    """Yield a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def _silent() -> Iterator[int]:
    """Yield a port where calls are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextlib.contextmanager
def _refusing() -> Iterator[int]:
    """Yield a port where every question is answered with an error of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "why", "mode"),
    [
        (_nobody, "does not answer", "online"),
        (_silent, "does not answer", "auto"),
        (_refusing, "answers with error 503", "auto"),
    ],
)
def test_a_run_whose_server_does_not_answer_goes_offline_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    server: Callable[[], contextlib.AbstractContextManager[int]],
    why: str,
    mode: str,
) -> None:
    alone(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with server() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        started = time.monotonic()
        tracker = _tracker(tmp_path, mode)
        tracker.round_done(record(1, evaluated=False))
        # The run has gone on long since.
        assert time.monotonic() - started < 5
        assert tracker.mode == "offline"
        tracker.close()
    told = capfd.readouterr().err
    assert told.count("wandb goes offline: ") == 1
    assert f"http://127.0.0.1:{port} {why}" in told
    assert "wandb ran offline; upload it with: wandb sync" in told
    assert list(tmp_path.glob("wandb/offline-run-*/run-abc.wandb"))


@pytest.mark.slow
def test_a_malformed_key_goes_offline_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("WANDB_API_KEY", "no key")
    tracker = _tracker(tmp_path)
    assert tracker.mode == "offline"
    tracker.close()
    assert "wandb goes offline" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "offline", "off"])
def test_only_a_run_that_is_to_be_online_needs_a_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    alone(monkeypatch, tmp_path)
    require_login(mode)
    with pytest.raises(UserError, match=r"tracking\.wandb is online and there is no login to wandb; log in with"):
        require_login("online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    require_login("online")


@pytest.mark.parametrize("project", ["team/mine", "a\\b", "a#b", "a?b", "100%", "a:b", "", "  ", "x" * 129])
def test_a_project_that_wandb_refuses_is_refused_when_the_configuration_is_read(project: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.project is .*; wandb takes 1 to 128 characters") as caught:
        TrackingConfig(project=project)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("project", ["mine", "Mäine 2", "a-b_c.d", "x" * 128])
def test_other_projects_are_taken(project: str) -> None:
    assert TrackingConfig(project=project).project == project


@pytest.mark.parametrize("given", ["bogus", "", "Online", "off"])
def test_a_mode_in_the_environment_that_wandb_does_not_know_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", given)
    with pytest.raises(UserError, match=f"WANDB_MODE is '{given}'; wandb knows: online, offline"):
        check_environment("auto")
    check_environment("off")
    for known in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", known)
        check_environment("auto")
