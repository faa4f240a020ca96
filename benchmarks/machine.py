"""What a benchmark ran on, and the table of what it found."""

import os
import platform
from importlib import metadata
from pathlib import Path

from rich.table import Table


def machine(*packages: str) -> str:
    """Return what was measured on, and the versions of ``packages``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def results(*packages: str) -> Table:
    """Return an empty table of measurements and their bars, titled with the machine and versions."""
    table = Table(title=machine(*packages))
    for column in ("what", "measured", "bar"):
        table.add_column(column)
    return table
