"""Nothing that a guarded command started outlives it."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import GUARD, PATIENCE, GuardedProcesses, ProcessError

#: Seconds that a process sleeps: whoever waits for it to be ended gives up before it ends by itself.
ASLEEP = round(2 * PATIENCE)

#: Starts one process as a child and one that leaves for a session of its own, then waits.
PARENT = f"sleep {ASLEEP} & setsid sleep {ASLEEP} & echo ready; wait"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[GuardedProcesses]:
    guarded = GuardedProcesses(tmp_path, {})
    yield guarded
    guarded.close(guarded.names)


def start(processes: GuardedProcesses, script: str = PARENT) -> list[int]:
    processes.start("it", ["bash", "-c", script])
    processes.wait("it", lambda: "ready" in processes.log("it") and len(processes.pids("it")) == 3, "it was ready")
    return processes.pids("it")


def test_what_a_guarded_command_writes_is_its_owners_alone(processes: GuardedProcesses, tmp_path: Path) -> None:
    # The SuperLink's database holds what nodes have sent, logs what they have said.
    processes.start("it", ["bash", "-c", "echo said; touch state.db; mkdir state"])
    processes.ended("it")
    for name, mode in {"state.db": 0o600, "it.log": 0o600, "state": 0o700}.items():
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_closing_ends_everything(processes: GuardedProcesses) -> None:
    pids = start(processes)
    processes.close(["it"])
    assert gone(pids)
    assert not processes.running("it")


@pytest.mark.slow
def test_a_command_that_ignores_sigterm_is_killed(processes: GuardedProcesses) -> None:
    pids = start(processes, f"trap '' TERM; {PARENT}; {PARENT}")
    processes.close(["it"])
    assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_takes_along_what_it_started(processes: GuardedProcesses, number: int) -> None:
    pids = start(processes)
    assert processes.kill("it", number) == 128 + number
    assert gone(pids)


@pytest.mark.slow
def test_everything_ends_with_who_started_it(tmp_path: Path) -> None:
    command = [sys.executable, str(GUARD), str(tmp_path / "log"), "bash", "-c", PARENT]
    program = f"import subprocess, time\nsubprocess.Popen({command!r}, stdin=subprocess.PIPE)\ntime.sleep({ASLEEP})"
    starter = subprocess.Popen([sys.executable, "-c", program])
    processes = GuardedProcesses(tmp_path, {})
    processes._guards["starter"] = starter
    processes.wait("starter", lambda: len(processes.pids("starter")) == 4, "all was started")
    pids = processes.pids("starter")
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    assert gone(pids)


def test_a_frozen_process_stays_and_goes_on(processes: GuardedProcesses) -> None:
    pids = start(processes)
    states = [Path(f"/proc/{pid}/stat") for pid in pids]
    for number, letter in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
        processes.send("it", number)
        processes.wait("it", lambda letter=letter: all(f") {letter} " in s.read_text() for s in states), letter)  # type: ignore[misc]


def test_the_error_for_an_early_end_holds_the_log(processes: GuardedProcesses) -> None:
    processes.start("it", ["bash", "-c", "echo no such option; exit 3"])
    with pytest.raises(ProcessError, match="it: ended before it was up\nno such option"):
        processes.wait("it", lambda: False, "it was up")
    assert processes.ended("it") == 3


def test_a_log_goes_on_over_restarts(processes: GuardedProcesses) -> None:
    for word in ("one", "two"):
        processes.start("it", ["echo", word])
        assert processes.ended("it") == 0
    assert processes.log("it") == "one\ntwo\n"


def test_a_running_process_is_not_started_twice(processes: GuardedProcesses) -> None:
    start(processes)
    with pytest.raises(ValueError, match="it is running"):
        processes.start("it", ["true"])
