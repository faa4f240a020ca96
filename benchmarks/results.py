"""The table of what a benchmark found."""

from importlib import metadata

from rich.table import Table

from supernet.machine import machine


def results(*packages: str) -> Table:
    """Return an empty table of measurements and their bars, titled with the machine and versions of ``packages``."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    table = Table(title=f"{machine()}, {versions}")
    for column in ("what", "measured", "bar"):
        table.add_column(column)
    return table
