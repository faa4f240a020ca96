"""Runs one command and leaves nothing of it behind: ``python process_guard.py LOG COMMAND...``.

Flower's processes start others, also in sessions of their own, which live on when their parent is killed. The guard
adopts them all (Linux calls it a subreaper), so that whatever the command started is below it and can be found. When
the command ends, all of them are ended: so does systemd, and so does a machine that loses its power.

Each byte on standard input is the number of a signal to deliver. SIGTERM and the end of the input, which also comes
when whoever started the guard is killed, end everything: SIGTERM to the command, SIGKILL to what is left after a while.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Linux, linux/prctl.h.
SET_CHILD_SUBREAPER = 36

#: Seconds that a command has to end by itself.
GRACE = 5.0

#: These ask a process to end, and are for the command itself; all others meet everything it started.
POLITE = frozenset({signal.SIGTERM, signal.SIGINT})


def main(log: str, command: list[str]) -> int:
    """Run ``command`` with its output in ``log`` to its end; return its exit code, negative for a signal."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signals, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # their numbers arrive in the pipe
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        watch(process, signals)
        return finish(process)
    finally:
        end_everything()


def watch(process: subprocess.Popen[bytes], signals: int) -> None:
    """Deliver signals and bury the dead until the command ended or is to end."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while process.poll() is None:
            ready = {key.fd for key, _ in selector.select()}
            if signals in ready:
                if signal.SIGTERM in os.read(signals, 4096):
                    return
                bury(process.pid)
            if 0 in ready:
                numbers = os.read(0, 64)
                if not numbers:
                    return
                for number in numbers:
                    deliver(number, process.pid)


def finish(process: subprocess.Popen[bytes]) -> int:
    """Ask the command to end if it has not; return its exit code."""
    process.terminate()
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def deliver(number: int, command: int) -> None:
    """Send a signal to the command, or to everything it started."""
    for pid in [command] if number in POLITE else descendants(os.getpid()):
        send(pid, number)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_everything() -> None:
    """Kill all that is left, until nothing is: a process may start another while it is looked for."""
    while True:
        for pid in descendants(os.getpid()):
            send(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def bury(command: int) -> None:
    """Take note of adopted processes that ended: a dead parent counts as alive until somebody does."""
    for pid in parents_and_children().get(os.getpid(), []):
        if pid != command:
            os.waitpid(pid, os.WNOHANG)


def descendants(pid: int) -> list[int]:
    """Return all processes below one, parents first."""
    below = parents_and_children()
    found, unseen = [], [pid]
    while unseen:
        started = below.get(unseen.pop(), [])
        found += started
        unseen += started
    return found


def parents_and_children() -> dict[int, list[int]]:
    """Return the children of every process there is."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name, in brackets, may hold anything; what follows it are the state and the parent.
        parent = int(text.rpartition(")")[2].split()[1])
        below.setdefault(parent, []).append(int(stat.parent.name))
    return below


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
