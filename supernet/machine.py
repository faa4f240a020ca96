"""What this machine is: the line that goes with every measurement."""

import os
import platform
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
    """Return the processor, its cores and the version of Python."""
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
