"""Commands that are really ended by signals, in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.processes import PATIENCE

#: A command that tells when it works, and then works as the argument says.
_COMMAND = """
import signal, sys, threading, time
from fedpareto.supernet.common.terminal import interruption
from fedpareto.supernet.common.terminal.console import run_command

def tell_of_the_call():
    main = threading.main_thread().ident
    while sys._current_frames()[main].f_code.co_name != "wait":
        time.sleep(0.01)
    # From Python's last step into the call.
    time.sleep(0.2)
    print("working", flush=True)

def work(arguments):
    if arguments[0] == "library":
        # The main thread is in one long call: signals reach the other threads alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        if arguments[0] == "library":
            threading.Thread(target=tell_of_the_call, daemon=True).start()
        else:
            print("working", flush=True)
        while arguments[0] == "python":
            time.sleep(0.01)
        threading.Event().wait()
    finally:
        if arguments[1:] == ["slow"]:
            time.sleep(3600)
        print("tidied", flush=True)

interruption.GRACE = 0.5
run_command("prog", work, sys.argv[1:])
"""


def _start(*arguments: str, ignored: bool = False) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _COMMAND, *arguments]
    if ignored:
        # As a shell starts what it runs in the background.
        command = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "prog: interrupted\n"), (signal.SIGTERM, 143, "prog: terminated\n")],
)
def test_a_signal_ends_a_command_in_one_line_once_it_has_tidied_up(
    number: signal.Signals, code: int, said: str, ignored: bool
) -> None:
    process = _start("python", ignored=ignored)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (code, "tidied\n", said)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("arguments", [("library",), ("python", "slow"), ("library", "slow")])
def test_a_command_that_cannot_tidy_up_in_time_is_ended(
    arguments: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    process = _start(*arguments)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, "")
    assert err == "prog: ended before it could tidy up; no file is half-written\n"


def test_further_signals_change_nothing_while_a_command_tidies_up() -> None:
    process = _start("python", "slow")
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.count("\n") == 1


def test_handlers_and_pipes_are_as_before_when_a_command_ends() -> None:
    from fedpareto.supernet.common.terminal.interruption import SIGNALS, ended_by_signals

    before = [signal.getsignal(number) for number in SIGNALS]
    files = len(os.listdir("/proc/self/fd"))
    with ended_by_signals("prog"):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    with pytest.raises(ValueError, match="broken"), ended_by_signals("prog"):
        raise ValueError("broken")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    end = time.monotonic() + PATIENCE
    while len(os.listdir("/proc/self/fd")) > files:
        # The thread that keeps the time closes its end of the pipe.
        assert time.monotonic() < end
        time.sleep(0.01)
