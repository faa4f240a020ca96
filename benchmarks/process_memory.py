"""Memory of a command and of all processes that it starts, at its peak (Linux)."""

import dataclasses
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_KIB = 1024


@dataclasses.dataclass(frozen=True)
class Peak:
    """Peaks of a command that ended well, in bytes.

    Attributes:
        together: sum over all processes, in which what several share counts once (Pss).
        largest: most of one process by itself (VmHWM), as ``/usr/bin/time`` tells.
        processes: most processes at once.
        seconds: time that the command took.
    """

    together: int
    largest: int
    processes: int
    seconds: float


def peak_of(command: Sequence[str], environment: dict[str, str], every: float = 0.25) -> Peak:
    """Return the peaks of a command, looked for every so many seconds.

    Raises:
        CalledProcessError: it failed.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment)
    together = largest = most = 0
    while process.poll() is None:
        family = _family(process.pid)
        together = max(together, sum(_field(pid, "smaps_rollup", "Pss:") for pid in family))
        largest = max([largest, *(_field(pid, "status", "VmHWM:") for pid in family)])
        most = max(most, len(family))
        time.sleep(every)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Peak(together, largest, most, time.monotonic() - started)


def _family(first: int) -> list[int]:
    """A process and all that it started, whatever thread of it did."""
    found, waiting = list[int](), [first]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            waiting += map(int, _text(path).split())
    return found


def _field(pid: int, file: str, name: str) -> int:
    for line in _text(Path(f"/proc/{pid}/{file}")).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * _KIB
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        # A process that has just ended has no memory any more.
        return ""
