"""Real processes of the console scripts, as installed beside the running Python."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: One thread: several processes on few cores otherwise wait for each other's.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "COLUMNS": "120", "WANDB_MODE": "offline"}

#: No test waits longer than this for a process; it is a bound, not an expectation.
PATIENCE = 900.0


def script(name: str) -> str:
    """Return the path of an installed console script."""
    return str(Path(sys.executable).with_name(name))


def start(name: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a console script outside the repository."""
    return subprocess.Popen(
        [script(name), *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(
    name: str, *arguments: object, cwd: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a console script outside the repository to its end; ``before`` runs in its process first."""
    return subprocess.run(
        [script(name), *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        preexec_fn=before,
        timeout=PATIENCE,
        check=False,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until ``condition`` holds; fail if the process ends or patience does first."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the process ended too early: {process.communicate()}")
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"nothing happened in {PATIENCE} s: {process.communicate()}")
        time.sleep(0.02)
