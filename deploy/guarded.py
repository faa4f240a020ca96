"""Named processes with a log each, every one under ``process_guard.py``: none outlives this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from process_guard import descendants

GUARD = Path(__file__).resolve().with_name("process_guard.py")

#: Seconds that any wait may take; a bound, not an expectation.
PATIENCE = 240.0


class ProcessError(RuntimeError):
    """A process did not do what was waited for; the text ends with the end of its log."""


class GuardedProcesses:
    """Processes by name; each has a log file and a ``FLWR_HOME`` of its own in ``folder``."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = environ
        self._guards: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of process ``name``, in which commands are this Python's."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, "FLWR_HOME": str(self.folder / f"{name}-home"), **self._environ}

    def start(self, name: str, command: list[str], environ: Mapping[str, str] | None = None) -> None:
        """Start a command as ``name``, which must not be running; its log goes on where it was."""
        if self.running(name):
            raise ValueError(f"{name} is running")
        environment = {**self.environment(name), **(environ or {})}
        Path(environment["FLWR_HOME"]).mkdir(exist_ok=True)
        # -S and -E: a guard needs no packages, and starts in 20 ms. A session of its own: Ctrl-C is not for it.
        self._guards[name] = subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), str(self._log(name)), *command],
            stdin=subprocess.PIPE,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
            umask=0o077,  # state.db, logs and keys are nobody else's
        )

    def running(self, name: str) -> bool:
        """Whether ``name`` was started and has not ended."""
        return name in self._guards and self._guards[name].poll() is None

    def send(self, name: str, number: int) -> None:
        """Send a signal: SIGTERM and SIGINT to the command itself, any other to all it started too."""
        stdin = self._guards[name].stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        stdin.write(bytes([number]))
        stdin.flush()

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """End ``name`` and all it started by a signal, wait until they have, and return its exit code."""
        self.send(name, number)
        return self.ended(name)

    def ended(self, name: str) -> int:
        """Wait until ``name`` has ended by itself; return its exit code, 128 and the signal for a killed one."""
        try:
            return self._guards[name].wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise self.error(name, f"did not end in {PATIENCE:.0f} s") from None

    def pids(self, name: str) -> list[int]:
        """Return the process ids of ``name`` and of all it started, its own first."""
        return descendants(self._guards[name].pid)

    def log(self, name: str) -> str:
        """Return what ``name`` has printed, over all its starts."""
        path = self._log(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait(self, name: str, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition`` holds; fail if ``name`` ends, or patience does, before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if not self.running(name):
                raise self.error(name, f"ended before {what}")
            if time.monotonic() > deadline:
                raise self.error(name, f"{PATIENCE:.0f} s passed before {what}")
            time.sleep(0.05)

    def error(self, name: str, what: str) -> ProcessError:
        """Return an error about ``name`` with the end of its log."""
        return ProcessError(f"{name}: {what}\n{self.log(name)[-4000:]}")

    def close(self, names: Iterable[str]) -> None:
        """End some processes at once, and wait until they have ended."""
        ending = [self._guards[name] for name in names if name in self._guards]
        for guard in ending:
            if guard.stdin and not guard.stdin.closed:
                guard.stdin.close()  # the end of its input is the end of all it started
        for guard in ending:
            guard.wait()

    @property
    def names(self) -> list[str]:
        """All names ever started."""
        return list(self._guards)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"
