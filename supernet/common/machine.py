"""Description of this machine, which is recorded with every measurement."""

import os
import platform
import re
from pathlib import Path


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Return one line with the processor, its cores and the version of Python."""
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Return the bytes of memory that are available to this process, as the kernel and its group of processes say."""
    found = [value for value in (_meminfo(), _group_limit()) if value is not None]
    return min(found, default=None)


def _meminfo() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    line = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return None if line is None else int(line[1]) * 1024


def _group_limit() -> int | None:
    """Return the bytes left below the limit of a container."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else max(int(limit) - int((folder / "memory.current").read_text()), 0)
    except (OSError, ValueError):
        return None
